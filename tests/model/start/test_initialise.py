"""Fitting a converted model: which layers change, what they are fitted to, and who is refused."""

import pytest
import torch

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.start.initialise import initialise
from bitnet_train.model.start.settings import InitConfig
from bitnet_train.quant.scheme import WeightScheme
from tests.fixtures.families import CONFIGS, converted_model, tiny_model, token_ids
from tests.fixtures.schemes import CODE_SETS, weight_scheme

LEARNABLE = WeightScheme(learnable_scale=True)
IDS = token_ids(rows=6)
REAL = torch.ones_like(IDS, dtype=torch.bool)


@torch.no_grad()
def distance(student, family: str) -> float:
    """Squared distance of the hidden states before the head from the float model's, on text of its own."""
    ids = token_ids(rows=8, seed=5)
    ours = student(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-1]
    theirs = tiny_model(family)(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-1]
    return float((ours - theirs).square().sum())


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
def test_error_feedback_brings_every_architecture_nearer_to_its_float_model(family: str) -> None:
    model = converted_model(family, LEARNABLE)
    before = distance(model, family)
    figures = initialise(model, InitConfig(latents="error_feedback"), token_ids(rows=32), torch.ones(32, 12).bool())
    assert figures["errors"].keys() == bit_layers(model).keys()
    assert distance(model, family) < before


@pytest.mark.parametrize("name", CODE_SETS)
def test_als_moves_scales_and_no_latent(name: str) -> None:
    scheme = weight_scheme(name, learnable_scale=True)
    model, plain = converted_model("llama", scheme), converted_model("llama", scheme)
    initialise(model, InitConfig(scales="als"), IDS, REAL)
    for key, layer in bit_layers(model).items():
        assert torch.equal(layer.weight, bit_layers(plain)[key].weight)
        assert not torch.equal(layer.scale, bit_layers(plain)[key].scale)


@pytest.mark.slow
def test_later_blocks_are_fitted_to_what_earlier_1_bit_blocks_give() -> None:
    model, other = converted_model("llama", LEARNABLE), converted_model("llama", LEARNABLE)
    with torch.no_grad():
        for name, layer in bit_layers(other).items():
            if ".0." in name:
                layer.scale.mul_(3)  # lost again when the block is fitted
    for each in (model, other):
        initialise(each, InitConfig(latents="error_feedback"), IDS, REAL)
    changed = {
        name for name, layer in bit_layers(model).items() if not torch.equal(layer.scale, bit_layers(other)[name].scale)
    }
    assert changed == set(), "a block's inputs come from blocks as they are after fitting"


@pytest.mark.slow
def test_padding_does_not_count() -> None:
    ids = token_ids(rows=4)
    real = torch.arange(12).expand(4, 12) < torch.tensor([12, 7, 9, 5])[:, None]
    fitted = []
    for filler in (0, 50):
        model = converted_model("llama", LEARNABLE)
        initialise(model, InitConfig(latents="error_feedback"), torch.where(real, ids, filler), real)
        fitted.append(model.state_dict())
    assert [name for name in fitted[0] if not torch.equal(fitted[0][name], fitted[1][name])] == []


@pytest.mark.slow
def test_the_same_text_gives_the_same_start_bit_for_bit() -> None:
    states = []
    for _ in range(2):
        model = converted_model("smollm", LEARNABLE)
        initialise(model, InitConfig(latents="error_feedback"), IDS, REAL)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_nothing_is_done_by_default() -> None:
    model = converted_model("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert initialise(model, InitConfig(), IDS, REAL) == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("settings", [{"scales": "als"}, {"latents": "error_feedback"}])
def test_fixed_scales_are_refused_before_anything_changes(settings: dict) -> None:
    model = converted_model("llama", WeightScheme())
    with pytest.raises(ConversionError, match=r"`init\.\w+` fits scales.*`weight\.learnable_scale=true`"):
        initialise(model, InitConfig(**settings), IDS, REAL)


@pytest.mark.parametrize(
    "settings", [{"scales": "best"}, {"latents": "none"}, {"calibration_rows": 0}, {"damping": 0.0}]
)
def test_a_setting_out_of_bounds_is_named(settings: dict) -> None:
    (key,) = settings
    with pytest.raises(ConfigError, match=rf"`init\.{key}="):
        InitConfig(**settings)
