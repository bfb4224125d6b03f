"""Level 2 of `validate`: the integers of the kernel are those of the oracle, on every instruction set of this machine.

The activations are the ones that break kernels: all 127, all -128, a token aligned with a row of the weight (the
largest sum there can be: K * 128), and random codes. Integers are compared with `==`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bitnet_train.exporters.manifest import LayerEntry
from bitnet_train.exporters.reader import open_weights
from bitnet_train.formats.planes import unpack_planes
from bitnet_train.kernels import ops, reference
from bitnet_train.model.packed_linear import PackedLinear
from bitnet_train.progress import track
from bitnet_train.runtime.check_model import Subject
from bitnet_train.runtime.validation_report import Level

_SEED = 20240229
_NUM_RANDOM_TOKENS = 3


def check_integers(subject: Subject, folder: Path, isas: Sequence[str]) -> Level:
    """Level 2. The kernel's integers are the oracle's, for worst-case and random codes, on every instruction set."""
    generator = torch.Generator().manual_seed(_SEED)
    integer = [layer for layer in subject.manifest.layers if layer.activation.name != "none"]
    num_products, failure = 0, None
    with open_weights(folder, subject.manifest) as weights:
        for layer in track(integer, "Validating integers", len(integer)):
            packed = subject.packed.get_submodule(layer.name)
            assert isinstance(packed, PackedLinear)
            codes = unpack_planes(weights.read(f"{layer.name}.planes"), layer.num_inputs, layer.scheme.name)
            x_codes = worst_case_codes(codes, layer.activation.name, generator)
            group = layer.scheme.inputs_per_scale(layer.num_inputs)
            expected = reference.grouped_dot(x_codes, codes, group)
            num_products += expected.numel() * len(isas)
            failure = failure or _first_bad_isa(layer, packed, x_codes, expected, isas)
    detail = f"kernel with the exact oracle, all ones, extremes and random codes{_left_out(subject.manifest.layers)}"
    figures = {"layers": len(integer), "products": num_products, "isas": " ".join(isas)}
    return Level("integers", detail, figures, failure)


def _left_out(layers: Sequence[LayerEntry]) -> str:
    tables = sum(layer.kind == "embedding" for layer in layers)
    floats = sum(layer.kind == "linear" and layer.activation.name == "none" for layer in layers)
    return (f"; {floats} layers with activation none have no integers" if floats else "") + (
        "; the embedding is a look-up and has no products" if tables else ""
    )


def worst_case_codes(w_codes: Tensor, activation: str, generator: torch.Generator) -> Tensor:
    """Return activation codes int8 [T, K]: the extremes in every position, aligned with a weight row, and random ones.

    With x aligned with row 0 the first sum is as large as a sum can be: K * 128 for int8, K for sign.
    """
    num_inputs = w_codes.shape[1]
    row = w_codes[:1].to(torch.int16)
    if activation == "sign":
        fixed = [torch.ones(1, num_inputs), -torch.ones(1, num_inputs), torch.where(row >= 0, 1, -1)]
        random = 2 * torch.randint(0, 2, (_NUM_RANDOM_TOKENS, num_inputs), generator=generator) - 1
    else:
        fixed = [torch.full((1, num_inputs), 127), torch.full((1, num_inputs), -128), torch.where(row > 0, 127, -128)]
        random = torch.randint(-128, 128, (_NUM_RANDOM_TOKENS, num_inputs), generator=generator)
    return torch.cat([*(part.to(torch.int8) for part in fixed), random.to(torch.int8)])


def _first_bad_isa(
    layer: LayerEntry, packed: PackedLinear, x_codes: Tensor, expected: Tensor, isas: Sequence[str]
) -> str | None:
    for isa in isas:
        with ops.forced_isa(isa):
            actual = ops.packed_dot(
                x_codes,
                packed.words,
                layer.num_inputs,
                layer.scheme.inputs_per_scale(layer.num_inputs),
                layer.scheme.name,
                layer.activation.name,
            )
        if not torch.equal(actual, expected):
            token, output, group = torch.nonzero(actual != expected)[0].tolist()
            return (
                f"{layer.name}: {isa} gives {int(actual[token, output, group])} instead of "
                f"{int(expected[token, output, group])} at token {token}, output {output}, group {group}"
            )
    return None
