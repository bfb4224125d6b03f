"""`model.h`: a row of C for every layer and tensor, written and parsed. Prose and types: `assets/c_array/head.h`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from bitnet_train.errors import FormatError

LARGEST_RANK = 4

NONE = "BITNET_NONE"
TYPES = {
    "float32": "BITNET_FLOAT32",
    "float16": "BITNET_FLOAT16",
    "bfloat16": "BITNET_BFLOAT16",
    "int8": "BITNET_INT8",
    "uint8": "BITNET_UINT8",
    "int64": "BITNET_INT64",
}
"""Name in the header of every dtype that a tensor may have."""

_ROW = re.compile(r'^ {4}\{"([^"\\]+)", (.+)\},$', re.MULTILINE)


class LayerRow(NamedTuple):
    """A row of `bitnet_layers`, in the order of its fields in C."""

    name: str
    kind: str
    num_planes: int
    has_zero: int
    inputs_are: str
    scale_type: str
    one_scale: int
    outputs: int
    inputs: int
    row_bytes: int
    group_size: int
    planes: int
    scales: int
    bias: int | None


class TensorRow(NamedTuple):
    """A row of `bitnet_tensors`; `shape` is filled up with ones to four dimensions."""

    name: str
    type: str
    rank: int
    shape: tuple[int, ...]
    offset: int


def header_text(
    layers: Sequence[LayerRow], tensors: Sequence[TensorRow], num_bytes: int, end_tokens: Sequence[int] = ()
) -> str:
    """Return `model.h` for a binary of `num_bytes`, and the ids at which a text ends."""
    return (
        f"{asset('head.h')}#define BITNET_MODEL_BYTES {num_bytes}u\n#define BITNET_NUM_LAYERS {len(layers)}u\n"
        f"#define BITNET_NUM_TENSORS {len(tensors)}u\n#define BITNET_NUM_END_TOKENS {len(end_tokens)}u\n\n"
        f"{_c_ends(end_tokens)}"
        f"static const bitnet_layer bitnet_layers[] = {{\n{''.join(map(_c_row, layers))}}};\n\n"
        f"static const bitnet_tensor bitnet_tensors[] = {{\n{''.join(map(_c_row, tensors))}}};\n\n#endif\n"
    )


def _c_ends(end_tokens: Sequence[int]) -> str:
    if not end_tokens:  # C99 has no empty array
        return ""
    return f"static const uint32_t bitnet_end_tokens[] = {_c_value(tuple(end_tokens))};\n\n"


def _c_row(row: LayerRow | TensorRow) -> str:
    return f'    {{"{row.name}", {", ".join(map(_c_value, row[1:]))}}},\n'


def _c_value(value: object) -> str:
    if isinstance(value, tuple):
        return "{" + ", ".join(map(_c_value, value)) + "}"
    return NONE if value is None else f"{value}u" if isinstance(value, int) else str(value)


def parse_header(path: Path) -> tuple[list[LayerRow], list[TensorRow]]:
    """Return the rows of a `model.h` that `header_text` wrote; FormatError when it is damaged."""
    layers: list[LayerRow] = []
    tensors: list[TensorRow] = []
    try:
        for name, text in _ROW.findall(path.read_text(encoding="ascii")):
            values = [_python_value(word) for word in re.sub(r"[{}\s]", "", text).split(",")]
            if len(values) == len(LayerRow._fields) - 1:
                layers.append(LayerRow(name, *values))
            else:
                kind, rank, *shape, offset = values
                tensors.append(TensorRow(name, kind, rank, tuple(shape), offset))
    except (OSError, ValueError, TypeError) as error:
        raise FormatError(f"{path} cannot be read: {error}. Export the model again.") from error
    if not layers:
        raise FormatError(f"{path} describes no layer. Export the model again.")
    return layers, tensors


def _python_value(word: str) -> Any:
    if word == NONE:
        return None
    return word if word.startswith("BITNET_") else int(word.removesuffix("u"))


def asset(name: str) -> str:
    """Return the text of a file of `assets/c_array`."""
    return (resources.files("bitnet_train") / "assets" / "c_array" / name).read_text(encoding="ascii")
