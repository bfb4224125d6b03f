"""How the 1-bit linears of a run multiply in training, chosen by timing one layer forward and backward.

```
float     in the precision of training: W_eff is made, and three products of floats
forward   y in integers, the bits of evaluation; gradients as float            float32 only
integer   y, dx and dW in integers, from gradients rounded to 8 bits (`kernels.integer_training`)
```

Which is fastest depends on the processor more than on the model: without matrix units integers win by far, with them
floats may. What is not clearly faster loses to the plainer one. A run that is continued keeps what it began with.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from bitnet_train.kernels.ops import ACTIVATIONS
from bitnet_train.model.bit_linear import BitLinear
from bitnet_train.model.quantized_linear import MIN_TOKENS, Products, training_products
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Clipped
from bitnet_train.train.loop.machine import CLEARLY, with_threads
from bitnet_train.train.loop.settings import AUTO

_TOKENS, _SIZE, _REPEATS = 512, 768, 3  # divisible by groups of 64 and 128, as layers of small models are
_PLAINEST_FIRST: tuple[Products, ...] = ("float", "forward", "integer")


@dataclass(frozen=True)
class ProductChoice:
    """How a run multiplies, and the milliseconds of a layer's step in each way that was timed, on one thread."""

    name: Products
    ms: dict[str, float]

    def describe(self) -> str:
        """Return a phrase for people: the way and how the plain one compares."""
        if not self.ms or self.name == "float":
            return f"products {self.name}"
        factor = self.ms["float"] / self.ms[self.name]
        compared = f"{factor:.1f} times" if factor >= 1 else f"only {factor:.1f} times"
        return f"products {self.name}; in floats a layer takes {compared} as long"


def choose_products(
    asked: str,
    precision: str,
    accelerator: str,
    weight: WeightScheme,
    activation: ActivationScheme,
    tokens: int = _TOKENS,
) -> ProductChoice:
    """Return how to multiply `tokens` tokens at a time; `auto` is decided by timing, once a process.

    Where there are no integers to multiply, on a GPU, without codes or with few tokens, it is `float`.
    """
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    if on_gpu or activation.name not in ACTIVATIONS or tokens < MIN_TOKENS:
        return ProductChoice("float" if asked == AUTO else _known(asked), {})
    if asked != AUTO:
        return ProductChoice(_known(asked), {})
    ms = time_products(precision, weight, activation)
    best = _PLAINEST_FIRST[0]
    for name in _PLAINEST_FIRST[1:]:
        if name in ms and ms[best] > CLEARLY * ms[name]:
            best = name
    return ProductChoice(best, ms)


@cache
def time_products(precision: str, weight: WeightScheme, activation: ActivationScheme) -> dict[str, float]:
    """Return the milliseconds that a layer takes forward and backward, by the way it multiplies, on one thread."""
    names: list[Products] = [name for name in _PLAINEST_FIRST if name != "forward" or precision == "fp32"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = BitLinear.from_linear(
            torch.nn.Linear(_SIZE, _SIZE, bias=False), _dividing(weight), activation, Clipped()
        )
        x = torch.randn(_TOKENS, _SIZE)
    return with_threads(1, lambda: {name: _layer_ms(layer.train(), x, name, precision == "bf16") for name in names})


def _dividing(weight: WeightScheme) -> WeightScheme:
    """The scheme itself, or one scale a row where its groups do not divide the layer that is timed."""
    fits = weight.granularity != "group" or _SIZE % weight.group_size == 0
    return weight if fits else replace(weight, granularity="row")


def _layer_ms(layer: BitLinear, x: Tensor, products: Products, bf16: bool) -> float:
    def elapsed() -> float:
        rows = x.clone().requires_grad_()
        layer.zero_grad()
        start = time.thread_time()
        with training_products(products), torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            y = layer(rows)
        y.backward(torch.ones_like(y))
        return 1e3 * (time.thread_time() - start)

    elapsed()  # the first finds memory and kernels
    return min(elapsed() for _ in range(_REPEATS))


def _known(name: str) -> Products:
    for known in _PLAINEST_FIRST:
        if name == known:
            return known
    raise AssertionError(f"`trainer.products={name}` is checked by its settings")
