import pytest

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, GRANULARITIES, ActivationScheme, WeightScheme
from tests.fixtures.schemes import CODE_SETS, weight_scheme


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


@pytest.mark.parametrize("code_set", CODE_SETS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_weight_scheme_survives_its_dictionary(code_set, granularity):
    scheme = weight_scheme(code_set, granularity, 64, learnable_scale=True, scale_dtype="float32")
    assert WeightScheme.from_dict(scheme.to_dict()) == scheme
    assert ("planes" in scheme.to_dict()) == (scheme.planes > 1), "files of one plane stay as they were"


def test_planes_are_of_binary_weights_alone():
    with pytest.raises(ConfigError, match=r"`weight\.planes=2` needs `weight\.name=binary`.*or `weight\.planes=1`"):
        WeightScheme("ternary", planes=2)


def test_a_scheme_of_several_planes_says_so():
    assert WeightScheme("binary", "group", 64, planes=2).describe() == "binary of 2 planes per group 64"
    assert WeightScheme("binary", "row").describe() == "binary per row"


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
        (lambda: WeightScheme(planes=0), "weight.planes"),
        (lambda: WeightScheme(planes=5), "weight.planes"),
        (lambda: ActivationScheme("int2"), "activation.name"),
        (lambda: WeightScheme.from_dict({"nam": "binary"}), "weight"),
    ],
)
def test_an_unknown_choice_names_its_key(build, key):
    with pytest.raises(ConfigError, match=f"`{key}"):
        build()
