"""Level 2 of `validate`: the integers of the kernel are those of the oracle, on every instruction set of this machine.

The activations are the ones that break kernels: all 127, all -128, a token aligned with a row of the weight (the
largest sum there can be: K * 128), and random codes. Integers are compared with `==`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bitnet_train.kernels import ops, reference
from bitnet_train.model.packed_linear import PackedLinear
from bitnet_train.packed.manifest import LayerEntry
from bitnet_train.packed.reader import open_weights
from bitnet_train.packed.stored import StoredLayer
from bitnet_train.progress import track
from bitnet_train.quant.activation import code_range
from bitnet_train.validation.check_model import Subject
from bitnet_train.validation.report import Level

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
            stored = weights.layer(layer)
            codes = stored.codes()
            x_codes = worst_case_codes(codes, layer.activation.name, generator)
            group = layer.scheme.inputs_per_scale(layer.num_inputs)
            expected = reference.grouped_dot(x_codes, codes, group)
            num_products += expected.numel() * (1 + len(isas))
            failure = failure or _loaded_difference(layer, packed, x_codes, expected)
            failure = failure or _first_bad_isa(stored, x_codes, expected, isas)
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

    With x aligned with row 0 the first sum is as large as a sum can be: K * 128 for int8, K * 8 for int4, K for sign.
    """
    num_inputs = w_codes.shape[1]
    row = w_codes[:1].to(torch.int16)
    if activation == "sign":
        fixed = [torch.ones(1, num_inputs), -torch.ones(1, num_inputs), torch.where(row >= 0, 1, -1)]
        random = 2 * torch.randint(0, 2, (_NUM_RANDOM_TOKENS, num_inputs), generator=generator) - 1
    else:
        lowest, highest = code_range(activation)
        extremes = [torch.full((1, num_inputs), highest), torch.full((1, num_inputs), lowest)]
        fixed = [*extremes, torch.where(row > 0, highest, lowest)]
        random = torch.randint(lowest, highest + 1, (_NUM_RANDOM_TOKENS, num_inputs), generator=generator)
    return torch.cat([*(part.to(torch.int8) for part in fixed), random.to(torch.int8)])


def _loaded_difference(layer: LayerEntry, packed: PackedLinear, x_codes: Tensor, expected: Tensor) -> str | None:
    """Compare the integers of the layer as it was loaded, for the kernel in use."""
    assert packed.stream is not None
    assert packed.weight is not None
    actual = ops.packed_dot(x_codes, packed.stream, packed.weight)
    if torch.equal(actual, expected):
        return None
    return f"{layer.name}: {packed.weight.kernel} {_first_difference(actual, expected)}"


def _first_bad_isa(stored: StoredLayer, x_codes: Tensor, expected: Tensor, isas: Sequence[str]) -> str | None:
    """Pack the layer for each instruction set and compare its integers; name the first that differ."""
    layer, planes, scale = stored.entry, stored.planes, stored.scale.float()
    group = layer.scheme.inputs_per_scale(layer.num_inputs)
    for isa in isas:
        with ops.forced_isa(isa):
            packed = ops.pack(planes, scale, layer.num_inputs, group, layer.scheme.code_set, layer.activation.name)
        actual = ops.packed_dot(x_codes, *packed)
        if not torch.equal(actual, expected):
            return f"{layer.name}: {isa} {_first_difference(actual, expected)}"
    return None


def _first_difference(actual: Tensor, expected: Tensor) -> str:
    token, output, group = torch.nonzero(actual != expected)[0].tolist()
    return (
        f"gives {int(actual[token, output, group])} instead of {int(expected[token, output, group])} at token {token}, "
        f"output {output}, group {group}"
    )
