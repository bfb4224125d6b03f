"""The baseline recipes compute what the tools they stand for compute, on real weights and real inputs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.integrations.bitnet import ActQuant, AutoBitLinear

from bitnet_train.config.compose import compose
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.bit_linear import BitLinear
from bitnet_train.quant.activation import fake_quantize_activation
from bitnet_train.quant.surrogate import SURROGATES
from bitnet_train.settings import part_of

pytestmark = pytest.mark.usefixtures("uncompiled")

TEXT = "def read(path):\n    with open(path) as file:\n        return [line.strip() for line in file if line]\n"
Outcome = tuple[Tensor, ...]  # y and gradients, in the order of `outcome`


@pytest.fixture(scope="module")
def layers() -> dict[str, tuple[nn.Linear, Tensor]]:
    """Every Linear of the bundled model's blocks with the inputs [T, K] that a piece of code gives it."""
    loaded = load_pretrained("tiny")
    found: dict[str, tuple[nn.Linear, Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Linear, args: tuple[Tensor], _: Tensor) -> None:
            found[name] = (module, args[0][0].detach().clone())

        return hook

    linears = {name: module for name, module in loaded.model.named_modules() if isinstance(module, nn.Linear)}
    hooks = [
        module.register_forward_hook(keep(name)) for name, module in linears.items() if name.startswith("model.layers")
    ]
    with torch.no_grad():
        loaded.model(**loaded.tokenizer(TEXT, return_tensors="pt"))
    for hook in hooks:
        hook.remove()
    return found


def ours(recipe: str, layer: nn.Linear) -> BitLinear:
    config = compose(recipe).config
    surrogate = part_of(SURROGATES[config.weight.estimator], config.weight)
    return BitLinear.from_linear(layer, config.weight.scheme, config.activation, surrogate).train()


def outcome(forward: Callable[[Tensor], Tensor], x: Tensor, *parameters: Tensor) -> Outcome:
    """Output, then the gradients of the input and of each parameter, for a fixed random gradient of the output."""
    x = x.clone().requires_grad_()
    y = forward(x)
    return y.detach(), *torch.autograd.grad(y, (x, *parameters), output_gradient(y))


def output_gradient(y: Tensor) -> Tensor:
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(0))


def assert_close(layer: BitLinear, x: Tensor, mine: Outcome, theirs: Outcome) -> None:
    """Hold y, dx and dW against bounds of their rounding errors.

    With equal codes a product differs by fewer than 8 roundings of 2^-24 of its size, and either sum of n products adds
    at most n of them: 2^-23 (n + 8) times the sum of magnitudes.
    """
    d_y = output_gradient(mine[0])
    x_q, w_q = fake_quantize_activation(x, layer.activation).abs(), layer.effective_weight().detach().abs()
    sums = {"y": linear(x_q, w_q), "dx": d_y.abs() @ w_q, "dW": d_y.abs().t() @ x_q}
    counts = {"y": x.shape[-1], "dx": len(w_q), "dW": len(x)}
    for (name, total), a, b in zip(sums.items(), mine, theirs, strict=False):
        assert bool(((a - b).abs() <= 2**-23 * (counts[name] + 8) * total).all()), name


def settled(layer: BitLinear, x: Tensor, theirs: Tensor) -> Tensor:
    """The tokens of x [T, K] whose codes equal those behind `theirs`.

    A value within a rounding of the middle of two codes may fall to either: the scale 127 / max is rounded once here
    and twice in torch's `127 / tensor`. At most one token of a layer has such a value.
    """
    step = x.abs().amax(dim=-1, keepdim=True) / 127
    equal = ((fake_quantize_activation(x, layer.activation) - theirs).abs() < step / 2).all(dim=-1)
    assert int((~equal).sum()) <= 1
    return x[equal]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["baselines/autobitlinear", "baselines/onebitllms"])
def test_ternary_baselines_give_the_forward_and_the_gradients_of_autobitlinear(recipe, layers) -> None:
    assert len(layers) == 28
    for layer, x in layers.values():
        theirs = AutoBitLinear(layer.in_features, layer.out_features, bias=False, online_quant=True)
        theirs.load_state_dict(layer.state_dict())
        mine = ours(recipe, layer)
        x = settled(mine, x, ActQuant.apply(x))
        expected = outcome(theirs, x, theirs.weight)
        assert_close(mine, x, outcome(mine, x, mine.weight), expected)


@pytest.mark.slow
def test_the_ternary_baselines_give_the_forward_and_the_gradients_of_onebitllms(layers) -> None:
    def rounded_up(values: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        return values + (torch.clamp(torch.floor(values * scale + 0.5), low, high) / scale - values).detach()

    def quantized(x: Tensor) -> Tensor:
        return rounded_up(x, 127.0 / x.detach().abs().amax(dim=-1, keepdim=True).clamp(min=1e-5), -128, 127)

    for layer, x in layers.values():
        weight = layer.weight.detach().clone().requires_grad_()

        def theirs(x: Tensor, weight: Tensor = weight) -> Tensor:
            by_tensor = 1.0 / weight.detach().abs().mean().clamp(min=1e-5)
            return linear(quantized(x), rounded_up(weight, by_tensor, -1, 1))

        mine = ours("baselines/onebitllms", layer)
        x = settled(mine, x, quantized(x))
        assert_close(mine, x, outcome(mine, x, mine.weight), outcome(theirs, x, weight))


@pytest.mark.slow
def test_paretoq_gives_a_learnable_row_scale_and_a_gradient_that_stops_at_it(layers) -> None:
    for layer, x in layers.values():
        weight, mine = layer.weight.detach(), ours("baselines/paretoq_1bit", layer)
        alpha = weight.abs().mean(dim=-1, keepdim=True)
        y, dx, d_weight, d_alpha = outcome(mine, x, mine.weight, mine.scale)
        by_product = output_gradient(y).t() @ x
        expected = (
            linear(x, weight.sign() * alpha),
            output_gradient(y) @ (weight.sign() * alpha),
            by_product * (weight.abs() <= alpha),
        )
        assert_close(mine, x, (y, dx, d_weight), expected)
        by_alpha = (weight.sign() * by_product).sum(dim=-1, keepdim=True) / math.sqrt(weight.numel())
        torch.testing.assert_close(d_alpha, by_alpha, rtol=1e-4, atol=1e-4 * float(by_alpha.abs().max()))


@pytest.mark.slow
def test_every_parameter_trains_in_every_baseline() -> None:
    for name in ("autobitlinear", "onebitllms", "paretoq_1bit", "onebit"):
        config = compose(f"baselines/{name}").config
        assert (config.adapter.kind, config.adapter.train_embeddings) == ("none", True)


def test_the_baselines_share_data_steps_and_rows_with_the_quickstart() -> None:
    start = compose("quickstart").config
    for name in ("autobitlinear", "onebitllms", "paretoq_1bit", "onebit"):
        config = compose(f"baselines/{name}").config
        assert (config.data, config.trainer) == (start.data, start.trainer)
