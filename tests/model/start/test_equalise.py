"""Equalising: the float model stays the same function, and its weights are easier to write as +-1."""

import pytest
import torch

from bitnet_train.model.convert import plan_conversion
from bitnet_train.model.settings import Selection
from bitnet_train.model.start.equalise import equalise
from bitnet_train.quant.scheme import WeightScheme
from tests.fixtures.families import CONFIGS, logits, tiny_model, token_ids
from tests.fixtures.schemes import CODE_SETS, weight_scheme

IDS = token_ids(rows=6)
REAL = torch.ones_like(IDS, dtype=torch.bool)


def uneven(family: str):
    """A model whose weights differ in size by input, as trained ones do."""
    model = tiny_model(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name and "wte" not in name:
                parameter.mul_(torch.logspace(-0.5, 0.5, parameter.shape[1])[None])
    return model


def schemes(model, name: str = "binary", **selection) -> dict[str, WeightScheme]:
    scheme = weight_scheme(name)
    return plan_conversion(model, Selection(**selection), scheme).schemes


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
def test_the_float_model_stays_the_same_function(family: str) -> None:
    model = uneven(family)
    before = logits(model)
    figures = equalise(model, schemes(model), IDS, REAL)["error_ratio"]
    assert min(figures.values()) < 0.999, "something was folded"
    # Each of 2 blocks rounds every weight of 4 folds once more (2^-24 each, relative) and sums K <= 96 products in
    # another scale; errors of up to 96 roundings a sum, two blocks deep, stay below 2 * 4 * 96 * 2^-24 = 4.6e-5.
    assert float((logits(model) - before).abs().max()) <= 4.6e-5 * float(before.abs().max())


@pytest.mark.parametrize("name", CODE_SETS)
def test_the_estimated_error_never_rises_and_uneven_inputs_gain(name: str) -> None:
    model = uneven("llama")
    figures = equalise(model, schemes(model, name), IDS, REAL)["error_ratio"]
    assert len(figures) == 8, "norm -> qkv, v -> o, norm -> gate and up, up -> down, in two blocks"
    assert all(0 < ratio <= 1 for ratio in figures.values())
    assert min(figures.values()) < 0.9


def test_query_heads_that_share_a_key_value_head_share_its_scales() -> None:
    model = uneven("llama")
    attention = model.model.layers[0].self_attn
    before_v, before_o = attention.v_proj.weight.clone(), attention.o_proj.weight.clone()
    equalise(model, schemes(model, include=("o_proj",)), IDS, REAL)
    gain_o = (attention.o_proj.weight / before_o).median(0).values.reshape(2, 2, 16)  # kv head, sharing, dimension
    gain_v = (before_v / attention.v_proj.weight).median(1).values.reshape(2, 16)
    assert float((gain_o - 1).abs().max()) > 0.01
    for sharing in range(2):
        torch.testing.assert_close(gain_o[:, sharing], gain_v)


def test_layers_that_stay_float_are_not_folded_for() -> None:
    model = uneven("llama")
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items() if "self_attn" in name}
    figures = equalise(model, schemes(model, roles=("mlp",)), IDS, REAL)["error_ratio"]
    assert all("mlp" in name for name in figures)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in kept.items())


def test_a_fold_that_would_change_the_function_is_undone() -> None:
    """A non-linearity between v and o: no scale can pass it."""

    class Bent(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return torch.tanh(super().forward(input))

    model = uneven("llama")
    for layer in model.model.layers:
        layer.self_attn.v_proj.__class__ = Bent
    before, weights = logits(model), model.model.layers[0].self_attn.o_proj.weight.clone()
    figures = equalise(model, schemes(model, include=("o_proj",)), IDS, REAL)["error_ratio"]
    assert set(figures.values()) == {1.0}
    assert torch.equal(model.model.layers[0].self_attn.o_proj.weight, weights)
    assert torch.equal(logits(model), before)
