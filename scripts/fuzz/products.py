"""Every kernel of this machine against numpy in int64: any shape, largest and smallest values, zeros, wrong arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st

from bitnet_train.errors import KernelError
from bitnet_train.formats.planes import NUM_PLANES, pack_planes
from bitnet_train.kernels import isa, ops, reference_int8
from bitnet_train.kernels.int8_ops import int8_linear, pack_int8, unpack_int8
from bitnet_train.quant.scheme import CODES as WEIGHT_CODES
from bitnet_train.quant.scheme import CodeSet
from scripts.fuzz.drawn import drawn
from scripts.fuzz.targets import Attempt, Outcome

CODES = {"int8": (-128, 127), "int4": (-8, 7), "sign": (-1, 1)}
FILLS = ("random", "lowest", "highest", "aligned", "zero")
_EDGES = (1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 513, 1023, 1024, 1025)


@dataclass(frozen=True)
class _Case:
    weight: CodeSet
    activation: str
    tokens: int
    outputs: int
    inputs: int
    groups: int
    fill: str
    threads: int
    seed: int

    @property
    def group_size(self) -> int:
        """Inputs that share a scale: the drawn number of groups where it divides, else one group."""
        return self.inputs // self.groups if self.inputs % self.groups == 0 else self.inputs


def kernels(work: Path) -> Attempt:
    """Multiply by every kernel that takes the case, and by int8 tables on every instruction set."""
    compiled = [(name_of_isa, name) for name, name_of_isa, runs in (isa.core.kernels() if isa.core else ()) if runs]
    rows = [*compiled, (isa.REFERENCE, "")]
    inputs = st.sampled_from(_EDGES) | st.integers(1, 1025)
    cases = st.builds(
        _Case,
        st.sampled_from(sorted(NUM_PLANES)),
        st.sampled_from(ops.ACTIVATIONS),
        st.integers(1, 9),
        st.integers(1, 70),
        inputs,
        st.integers(1, 8),
        st.sampled_from(FILLS),
        st.sampled_from((1, 2, 3)),
        st.integers(0, 2**32 - 1),
    )
    return drawn(cases, lambda case: _check(case, rows))


def _check(case: _Case, rows: list[tuple[str, str]]) -> Outcome:
    x, w = _codes(case)
    groups = case.inputs // case.group_size
    grouped = (codes.astype(np.int64).reshape(-1, groups, case.group_size) for codes in (x, w))
    expected = torch.from_numpy(np.einsum("tgk,ngk->tng", *grouped))
    planes, scale = pack_planes(torch.from_numpy(w), case.weight), torch.ones(case.outputs, groups)
    before = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    try:
        for row in rows:
            with ops.forced_isa(*row):
                packed = ops.pack(planes, scale, case.inputs, case.group_size, case.weight, case.activation)
                found = ops.packed_dot(torch.from_numpy(x), *packed)
                assert torch.equal(found.long(), expected), f"{row}: {case}"
                _refuses_wrong_arrays(torch.from_numpy(x), packed)
        _check_table(case, {name for name, _ in rows})
    finally:
        torch.set_num_threads(before)
    return "works"


def _codes(case: _Case) -> tuple[np.ndarray, np.ndarray]:
    """Codes of activations [T, K] and weights [N, K]; `aligned` gives the largest sums there are."""
    generator = np.random.default_rng(case.seed)
    lowest, highest = CODES[case.activation]
    w = generator.choice(np.array(WEIGHT_CODES[case.weight], np.int8), (case.outputs, case.inputs))
    x = generator.integers(lowest, highest, (case.tokens, case.inputs), np.int8, endpoint=True)
    if case.fill in ("lowest", "highest"):
        x[:] = lowest if case.fill == "lowest" else highest
    elif case.fill == "aligned":
        x[:] = np.where(w[generator.integers(case.outputs)] >= 0, highest, lowest)
    elif case.fill == "zero":
        x[:] = 0
        w[:] = 0 if 0 in WEIGHT_CODES[case.weight] else 1
    return (np.where(x >= 0, 1, -1).astype(np.int8) if case.activation == "sign" else x), w


def _refuses_wrong_arrays(x: torch.Tensor, packed: tuple[torch.Tensor, ops.PackedWeight]) -> None:
    for wrong in (x.float(), x[:, 1:].contiguous(), x[None], torch.cat([x, x], dim=1)[:, ::2]):
        try:
            ops.packed_dot(wrong, *packed)
        except KernelError:
            continue
        fits = wrong.dtype == torch.int8 and wrong.shape == x.shape and wrong.is_contiguous()
        assert fits, f"took {wrong.dtype} {list(wrong.shape)} with strides {wrong.stride()}"


def _check_table(case: _Case, isas: set[str]) -> None:
    """An int8 table gives the bits of its reference on every instruction set, and its codes back."""
    generator = torch.Generator().manual_seed(case.seed)
    codes = torch.randint(-128, 128, (case.outputs, case.inputs), dtype=torch.int8, generator=generator)
    scale = torch.rand(case.outputs, generator=generator)
    x = torch.randn(case.tokens, case.inputs, generator=generator)
    if case.fill != "random":
        x = x.sign() * 3e38 if case.fill == "highest" else torch.zeros_like(x)
    stream = pack_int8(codes)
    assert torch.equal(unpack_int8(stream, *codes.shape), codes), case
    expected = reference_int8.int8_linear(x, codes, scale, None)
    for name in sorted(isas):
        with ops.forced_isa(name):
            found = int8_linear(x, stream, scale, None)
        assert _same_bits(found, expected), f"int8 table, {name}: {case}"


def _same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether all numbers are the same, and NaN in the same places."""
    return torch.equal(first.isnan(), second.isnan()) and torch.equal(first.nan_to_num(), second.nan_to_num())
