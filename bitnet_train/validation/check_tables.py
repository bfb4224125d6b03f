"""The int8 tables in levels 1 and 2 of `validate`: their bytes, and their products on every instruction set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bitnet_train.errors import ConversionError
from bitnet_train.kernels import ops, reference_int8
from bitnet_train.model.int8_table import Int8Linear
from bitnet_train.packed.manifest import TableEntry, sha256_of
from bitnet_train.packed.narrow import hashable, same_bits
from bitnet_train.packed.reader import WeightsReader
from bitnet_train.packed.stored import StoredTable
from bitnet_train.quant.table import table_codes
from bitnet_train.validation.check_model import Subject
from bitnet_train.validation.differences import difference
from bitnet_train.validation.report import Level

_SEED = 20240229
_NUM_RANDOM_TOKENS = 3


def table_problem(table: TableEntry, weights: WeightsReader, trained: nn.Module | None) -> str | None:
    """Return what is wrong with the bytes of one table, or None; with a trained model they are compared with it."""
    stored = weights.table(table)
    codes, scale = stored.codes, stored.scale
    checks = {
        "codes: other hash than the manifest says": sha256_of(hashable(codes)) == table.codes_sha256,
        "scale: other hash than the manifest says": sha256_of(hashable(scale)) == table.scale_sha256,
        "scale: not finite, or not above 0": bool((torch.isfinite(scale) & (scale > 0)).all()),
    }
    problem = next((text for text, passed in checks.items() if not passed), None)
    if problem is not None or trained is None:
        return problem
    return _difference_from(dict(trained.named_modules()).get(table.name), stored)


def _difference_from(module: nn.Module | None, stored: StoredTable) -> str | None:
    """Compare with the float table of the trained model, rounded in the same way."""
    codes, scale, bias = stored.codes, stored.scale, stored.bias
    weight, trained_bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or weight.shape != codes.shape:
        return f"the trained model has no float table {list(codes.shape)} there"
    try:
        trained_codes, trained_scale = table_codes(weight, stored.entry.bits)
    except ConversionError as error:
        return str(error)
    differing = int((codes != trained_codes).sum())
    if differing:
        return f"codes: {differing} of {codes.numel()} differ from the trained ones, rounded alike"
    if not same_bits(scale, trained_scale):
        return "scale: differs from that of the trained table"
    same_bias = bias is None if trained_bias is None else bias is not None and same_bits(bias, trained_bias.detach())
    return None if same_bias else "bias: differs from the trained one"


def add_table_products(level: Level, subject: Subject, isas: Sequence[str]) -> Level:
    """Add to level 2 the head that is an int8 table: its products are the oracle's, bit for bit, on these ISAs."""
    heads = [table for table in subject.manifest.tables if table.kind == "linear"]
    failure, num_products = level.first_failure, 0
    for table in heads:
        packed = subject.packed.get_submodule(table.name)
        assert isinstance(packed, Int8Linear)
        codes = packed.codes()
        x = worst_case_inputs(codes)
        expected = reference_int8.int8_linear(x, codes, packed.w_scale, packed.bias)
        num_products += expected.numel() * len(isas)
        failure = failure or _first_bad_isa(table.name, packed, x, expected, isas)
    if not heads:
        return level
    detail = f"{level.detail}; products of the int8 head with the oracle, on all extremes and random inputs"
    return replace(
        level, detail=detail, figures={**level.figures, "int8_products": num_products}, first_failure=failure
    )


def worst_case_inputs(codes: Tensor) -> Tensor:
    """Return inputs float32 [T, K]: the extreme 16-bit codes everywhere, aligned with row 0 of the table, random."""
    generator = torch.Generator().manual_seed(_SEED)
    ones = torch.ones(1, codes.shape[1])
    aligned = torch.where(codes[:1] >= 0, 1.0, -1.0)
    return torch.cat([ones, -ones, aligned, torch.randn(_NUM_RANDOM_TOKENS, codes.shape[1], generator=generator)])


def _first_bad_isa(name: str, packed: Int8Linear, x: Tensor, expected: Tensor, isas: Sequence[str]) -> str | None:
    for isa in isas:
        with ops.forced_isa(isa):
            how = difference(packed(x), expected)
        if how:
            return f"{name}: {isa} gives {how}"
    return None
