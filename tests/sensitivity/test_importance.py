"""What inputs are worth, and trials with scales fitted to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bitnet_train.model.start.fit_scale import fit_scale
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.weight import dequantize, quantize
from bitnet_train.sensitivity.importance import listening
from bitnet_train.sensitivity.in_place import InPlace
from tests.fixtures.families import tiny_model

SCHEME = WeightScheme(granularity="group", group_size=8, planes=3)


def test_it_is_the_mean_square_of_every_input_over_all_passes() -> None:
    torch.manual_seed(0)
    layers = {"a": nn.Linear(6, 4), "table": nn.Embedding(9, 6), "idle": nn.Linear(6, 2)}
    x = torch.randn(2, 5, 6), torch.randn(1, 3, 6)
    with listening(nn.ModuleDict(layers), layers) as found:
        for part in x:
            layers["a"](part)
        layers["table"](torch.arange(3))
        assert found == {}
    layers["a"](torch.full((1, 6), 100.0))
    assert set(found) == {"a"}
    expected = torch.cat([part.reshape(-1, 6) for part in x]).square().mean(0)
    assert torch.allclose(found["a"], expected, rtol=1e-5)  # float32 sums of 13 squares in another order


def test_padding_is_not_counted() -> None:
    model = tiny_model()
    ids = torch.tensor([[5, 6, 7, 8]])
    padded = torch.nn.functional.pad(ids, (0, 3), value=1)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    seen = []
    for inputs in ({"input_ids": ids}, {"input_ids": padded, "attention_mask": mask}):
        with torch.no_grad(), listening(model, layers) as found:
            model(**inputs, use_cache=False)
        seen.append(found)
    for name in layers:  # a causal model's first tokens see none of the padding; sums of other shapes round otherwise
        assert torch.allclose(seen[0][name], seen[1][name], rtol=1e-4, atol=1e-7), name


def test_a_weight_that_meets_huge_inputs_is_kept_and_counts_in_the_error() -> None:
    torch.manual_seed(1)
    layer = nn.Linear(16, 12, bias=False)
    with torch.no_grad():
        layer.weight[3, 5] = 30 * layer.weight.abs().mean()
    weight = layer.weight.detach().clone()
    importance = torch.ones(16)
    importance[5] = 1e4
    plain, fitted = (InPlace({"a": layer}, ActivationScheme("none"), known) for known in ({}, {"a": importance}))
    errors = []
    for in_place in (plain, fitted):
        in_place.quantize({"a": SCHEME})
        errors.append(abs(float(layer.weight[3, 5] / weight[3, 5]) - 1))
        in_place.put_back()
    assert errors[0] > 0.5
    assert errors[1] < 0.1

    scale = fit_scale(weight, SCHEME, importance)
    lost = (weight - dequantize(quantize(weight, scale, SCHEME), scale)).square()
    expected = float((importance * lost).sum() / (importance * weight.square()).sum())
    assert fitted.rounding_error("a", SCHEME) == pytest.approx(expected, rel=1e-5)  # float32 sums in another order
