"""The rows of a manifest, read from JSON field by field: nothing missing, nothing unknown, nothing out of range."""

from __future__ import annotations

import re
from typing import Any, get_args

from bitnet_train.errors import BitnetTrainError, FormatError
from bitnet_train.packed.entries import FileEntry, LayerEntry, Sizes, TableEntry, TensorEntry
from bitnet_train.packed.json_fields import Fields
from bitnet_train.packed.names import MANIFEST_NAME
from bitnet_train.quant.scheme import TABLE_BITS, ActivationScheme, LayerKind, WeightScheme

_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_layer(value: Any, where: str) -> LayerEntry:
    """Read a packed layer; a FormatError says `where` which field is wrong, as of the others."""
    fields = Fields(value, where)
    layer = LayerEntry(
        name=fields.take("name", str),
        scheme=_read_scheme(WeightScheme.from_dict, fields.take("scheme", dict), f"{where}: `scheme`"),
        activation=_read_scheme(ActivationScheme, fields.take("activation", str), f"{where}: `activation`"),
        num_outputs=fields.take_count("num_outputs", 1),
        num_inputs=fields.take_count("num_inputs", 1),
        has_bias=fields.take("has_bias", bool),
        codes_sha256=_checked_sha256(fields.take("codes_sha256", str), where),
        scale_sha256=_checked_sha256(fields.take("scale_sha256", str), where),
        kind=_checked_kind(fields.take("kind", str), where),
    )
    fields.done()
    if layer.kind == "embedding" and (layer.has_bias or layer.activation.name != "none"):
        raise FormatError(f"{where}: an embedding has no bias and no activations, but this one states them.")
    return layer


def read_table(value: Any, where: str) -> TableEntry:
    """Read a table of 8 bits."""
    return _read_table(Fields(value, where), where, bits=8)


def read_table_of_bits(value: Any, where: str) -> TableEntry:
    """Read a table that says its bits."""
    fields = Fields(value, where)
    bits = fields.take("bits", int)
    if bits not in TABLE_BITS.values():
        raise FormatError(f"{where}: `bits` is {bits}. Allowed: {', '.join(map(str, TABLE_BITS.values()))}.")
    return _read_table(fields, where, bits=bits)


def _read_table(fields: Fields, where: str, bits: int) -> TableEntry:
    table = TableEntry(
        name=fields.take("name", str),
        kind=_checked_kind(fields.take("kind", str), where),
        num_rows=fields.take_count("num_rows", 1),
        num_inputs=fields.take_count("num_inputs", 1),
        has_bias=fields.take("has_bias", bool),
        codes_sha256=_checked_sha256(fields.take("codes_sha256", str), where),
        scale_sha256=_checked_sha256(fields.take("scale_sha256", str), where),
        bits=bits,
    )
    fields.done()
    if table.kind == "embedding" and table.has_bias:
        raise FormatError(f"{where}: an embedding has no bias, but this one states one.")
    return table


def _checked_kind(text: str, where: str) -> LayerKind:
    for kind in get_args(LayerKind):
        if text == kind:
            return kind
    raise FormatError(f"{where}: `kind` is {text[:80]!r}. Allowed: {', '.join(get_args(LayerKind))}.")


def _read_scheme(read: Any, value: Any, where: str) -> Any:
    try:
        return read(value)
    except (BitnetTrainError, TypeError, ValueError, KeyError, AssertionError) as error:
        raise FormatError(f"{where} is not a scheme that this version knows: {error}") from error


def read_tensor(value: Any, where: str) -> TensorEntry:
    """Read a tensor."""
    fields = Fields(value, where)
    shape = fields.take_list("shape", _read_dimension)
    entry = TensorEntry(fields.take("dtype", str), shape, _checked_sha256(fields.take("sha256", str), where))
    fields.done()
    return entry


def _read_dimension(value: Any, where: str) -> int:
    if type(value) is not int or value < 0:
        raise FormatError(f"{where} must be a dimension, not {value!r}.")
    return value


def read_file(value: Any, where: str) -> FileEntry:
    """Read a file."""
    fields = Fields(value, where)
    entry = FileEntry(fields.take_count("num_bytes"), _checked_sha256(fields.take("sha256", str), where))
    fields.done()
    return entry


def read_sizes(value: dict[str, Any]) -> Sizes:
    """Read the sums of sizes."""
    fields = Fields(value, f"{MANIFEST_NAME}: `sizes`")
    names = ("packed_bytes", "scale_bytes", "fp16_bytes", "total_bytes")
    sizes = Sizes(**{name: fields.take_count(name) for name in names})
    fields.done()
    return sizes


def _checked_sha256(text: str, where: str) -> str:
    if not _SHA256.fullmatch(text):
        raise FormatError(f"{where}: {text[:80]!r} is not a SHA-256.")
    return text
