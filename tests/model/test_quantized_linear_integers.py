"""Integer gradients of the bundled model's own layers, on its own activations, against float64."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.bit_linear import BitLinear, bit_layers
from bitnet_train.model.convert import convert
from bitnet_train.model.quantized_linear import MIN_TOKENS, training_products
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.surrogate import Identity

SCHEMES = [
    WeightScheme("binary", "group", 64),
    WeightScheme("ternary"),
    WeightScheme("binary", "tensor"),
    WeightScheme("binary", "group", 64, planes=2),
    WeightScheme("binary", "group", 64, planes=4),
]
TEXT = Path(textwrap.__file__).read_text(encoding="utf-8")
Layers = dict[str, tuple[BitLinear, Tensor, Tensor]]


@pytest.fixture(scope="module", params=SCHEMES, ids=lambda scheme: scheme.describe())
def layers(request: pytest.FixtureRequest) -> Layers:
    """Every 1-bit layer with the input [T, K] and the gradient of its output [T, N] that a training step gives it."""
    loaded = load_pretrained("tiny")
    convert(loaded.model, weight=request.param, surrogate=Identity())
    loaded.model.train()
    seen: dict[str, list[Tensor]] = {}

    def hook(name: str) -> object:
        def keep(module: nn.Module, args: tuple[Tensor], y: Tensor) -> None:
            seen[name] = [args[0][0].detach()]
            y.register_hook(lambda dy: seen[name].append(dy[0].clone()))

        return keep

    found = {name: layer for name, layer in bit_layers(loaded.model).items() if isinstance(layer, BitLinear)}
    for name, layer in found.items():
        layer.register_forward_hook(hook(name))
    ids = loaded.tokenizer(TEXT, return_tensors="pt")["input_ids"][:, : 2 * MIN_TOKENS]
    loaded.model(input_ids=ids, labels=ids).loss.backward()
    return {name: (layer, *seen[name]) for name, layer in found.items()}


def pairs(
    layers: Layers,
) -> Iterator[tuple[str, dict[str, tuple[Tensor, Tensor]]]]:
    """Per layer (integer, exact) of dx and of dW_eff."""
    for name, (layer, x, dy) in layers.items():
        rows = x.clone().requires_grad_()
        layer.weight.grad = None
        with training_products("integer"):
            layer(rows).backward(dy)
        codes, scale = layer.quantized()
        weight = (codes.float().reshape(len(codes), scale.shape[1], -1) * scale[..., None]).reshape(codes.shape)
        s = 127 / x.double().abs().amax(1, keepdim=True).clamp(min=1e-5)
        value = (x.double() * s).round() / s
        assert rows.grad is not None
        assert layer.weight.grad is not None
        yield (
            name,
            {
                "dx": (rows.grad.double(), dy.double() @ weight.double()),
                "dW": (layer.weight.grad.double(), dy.double().T @ value),
            },
        )


@pytest.mark.slow
def test_gradients_point_where_float64_points(layers: Layers) -> None:
    for name, both in pairs(layers):
        for kind, (ours, exact) in both.items():
            cosine = float(torch.cosine_similarity(ours.flatten(), exact.flatten(), dim=0))
            assert cosine > {"dx": 0.999, "dW": 0.995}[kind], (name, kind, cosine)


def test_gradients_are_not_biased(layers: Layers) -> None:
    """Nearest rounding errs either way: the least-squares factor on the exact gradient is 1 within its error.

    With residuals e the factor <ours, exact> / <exact, exact> is off by <e, exact> / <exact, exact>, whose standard
    error is |e| / |exact| / sqrt(n) for n errors that know nothing of each other. Those of a row or column share a
    rounding scale and a dy, so n is at most their number, and where a few rows hold most of a gradient, the number of
    those (the participation ratio). Six standard errors: 84 layers and two gradients each are looked at.
    """
    for name, both in pairs(layers):
        for kind, (ours, exact) in both.items():
            error = ours - exact
            factor = float((error * exact).sum() / exact.square().sum())
            independent = min(participating(exact.square().sum(dim)) for dim in (0, 1))
            assert abs(factor) <= 6 * float(error.norm() / exact.norm()) / independent**0.5, (name, kind, factor)


def participating(shares: Tensor) -> float:
    """How many of these shares there would be if all that count were alike: (sum s)^2 / sum s^2."""
    return float(shares.sum() ** 2 / shares.square().sum())
