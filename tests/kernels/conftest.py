"""Random and worst-case problems for the kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from bitnet_train.formats.planes import pack_planes
from bitnet_train.kernels import ops, reference


@dataclass(frozen=True)
class Problem:
    x_codes: Tensor
    x_scale: Tensor
    w_codes: Tensor
    w_scale: Tensor
    bias: Tensor | None
    group_size: int
    weight: str
    activation: str

    @property
    def num_inputs(self) -> int:
        return self.w_codes.shape[1]

    @property
    def words(self) -> Tensor:
        return ops.repack(pack_planes(self.w_codes, self.weight), self.num_inputs, self.group_size, self.weight)

    def dot(self) -> Tensor:
        return ops.packed_dot(self.x_codes, self.words, self.num_inputs, self.group_size, self.weight, self.activation)

    def linear(self) -> Tensor:
        return ops.packed_linear(
            self.x_codes, self.x_scale, self.words, self.w_scale, self.bias,
            self.num_inputs, self.group_size, self.weight, self.activation,
        )  # fmt: skip

    def reference_linear(self) -> Tensor:
        return reference.linear(self.x_codes, self.x_scale, self.w_codes, self.w_scale, self.bias, self.group_size)


def codes(shape: tuple[int, int], low: int, *, zero: bool, generator: torch.Generator) -> Tensor:
    """Uniform int8 codes from `low` to `-low` (or to 127), without 0 where a scheme has none."""
    values = torch.randint(low, min(-low, 127) + 1, shape, generator=generator, dtype=torch.int8)
    return values if zero else torch.where(values >= 0, 1, -1).to(torch.int8)


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Problem]:
    """Build a random problem: weight, activation, T, N, K, group size, seed."""

    def make(
        weight: str, activation: str, num_tokens: int, num_outputs: int, num_inputs: int, group_size: int, seed: int = 0
    ) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        is_int8 = activation == "int8"
        return Problem(
            x_codes=codes((num_tokens, num_inputs), -128 if is_int8 else -1, zero=is_int8, generator=generator),
            x_scale=torch.rand(num_tokens, 1, generator=generator) + 0.01,
            w_codes=codes((num_outputs, num_inputs), -1, zero=weight == "ternary", generator=generator),
            w_scale=torch.rand(num_outputs, num_inputs // group_size, generator=generator) + 0.01,
            bias=torch.randn(num_outputs, generator=generator),
            group_size=group_size,
            weight=weight,
            activation=activation,
        )

    return make
