import pytest

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, GRANULARITIES, WEIGHT_SCHEMES, ActivationScheme, WeightScheme


@pytest.mark.parametrize(
    ("granularity", "shape"), [("tensor", (1, 1)), ("row", (6, 1)), ("group", (6, 4))], ids=GRANULARITIES
)
def test_a_scale_has_one_entry_per_tensor_row_or_group(granularity, shape):
    assert WeightScheme(granularity=granularity, group_size=8).scale_shape(6, 32) == shape


def test_a_group_size_that_does_not_divide_names_the_key_and_those_that_do():
    with pytest.raises(ConversionError, match=r"`weight.group_size=128` does not divide the 20 inputs") as caught:
        WeightScheme(granularity="group").scale_shape(6, 20)
    assert "2, 4, 5, 10, 20" in str(caught.value)


def test_the_group_size_is_only_read_for_groups():
    assert WeightScheme(granularity="row", group_size=128).inputs_per_scale(20) == 20
    assert WeightScheme(granularity="group", group_size=4).inputs_per_scale(20) == 4


@pytest.mark.parametrize("name", WEIGHT_SCHEMES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_weight_scheme_survives_its_dictionary(name, granularity):
    scheme = WeightScheme(name, granularity, 64, learnable_scale=True, scale_dtype="float32")
    assert WeightScheme.from_dict(scheme.to_dict()) == scheme


@pytest.mark.parametrize("name", ACTIVATION_SCHEMES)
def test_an_activation_scheme_survives_its_dictionary(name):
    assert ActivationScheme.from_dict(ActivationScheme(name).to_dict()) == ActivationScheme(name)


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: WeightScheme(name="quaternary"), "weight.name"),
        (lambda: WeightScheme(granularity="column"), "weight.granularity"),
        (lambda: WeightScheme(scale_dtype="float8"), "weight.scale_dtype"),
        (lambda: WeightScheme(group_size=0), "weight.group_size"),
        (lambda: ActivationScheme("int2"), "activation.name"),
        (lambda: WeightScheme.from_dict({"nam": "binary"}), "weight"),
    ],
)
def test_an_unknown_choice_names_its_key(build, key):
    with pytest.raises(ConfigError, match=f"`{key}"):
        build()
