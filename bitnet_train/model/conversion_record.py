"""What `convert` was asked and which layers it changed, and the file of a merged model that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitnet_train.errors import FormatError
from bitnet_train.json_text import parse_json
from bitnet_train.model.folder_names import RECORD_FILE
from bitnet_train.model.plan import describe_schemes
from bitnet_train.model.settings import Selection
from bitnet_train.quant.scheme import TABLE_BITS, ActivationScheme, TableType, WeightScheme
from bitnet_train.quant.surrogate import Identity, Surrogate, surrogate_from_dict

_SCHEMAS = (1, 2, 3, 4)


@dataclass(frozen=True)
class ConversionRecord:
    """What `convert` was asked and which layers it changed: enough to rebuild the modules."""

    layers: tuple[str, ...]
    weight: WeightScheme = field(default_factory=WeightScheme)
    """The scheme of every layer that `mixed` does not name."""
    activation: ActivationScheme = field(default_factory=ActivationScheme)
    surrogate: Surrogate = field(default_factory=Identity)
    selection: Selection = field(default_factory=Selection)
    mixed: Mapping[str, WeightScheme] = field(default_factory=dict)
    """Layers with a scheme of their own."""
    tables: tuple[str, ...] | None = None
    """Embedding and head that are rounded tables, everything else outside the layers bfloat16 (`model.rounded_table`);
    None: nothing outside the layers is rounded."""
    stored_tables: TableType = "int8"
    """What `tables` are rounded to."""

    @property
    def is_rounded(self) -> bool:
        """Whether what is not 1-bit is rounded too, in training as on disk."""
        return self.tables is not None

    @classmethod
    def of_schemes(cls, schemes: Mapping[str, WeightScheme], weight: WeightScheme, **parts: Any) -> ConversionRecord:
        """The record of layers with these schemes, in model order; `weight` is the usual one."""
        mixed = {name: scheme for name, scheme in schemes.items() if scheme != weight}
        return cls(layers=tuple(schemes), weight=weight, mixed=mixed, **parts)

    @property
    def schemes(self) -> dict[str, WeightScheme]:
        """The scheme of every layer, in model order."""
        return {name: self.mixed.get(name, self.weight) for name in self.layers}

    def describe(self) -> str:
        """In a few words: `28 layers binary per row`, or of a mix each scheme with its layers."""
        words = describe_schemes(self.schemes.values())
        return words if len(set(self.schemes.values())) > 1 else f"{len(self.layers)} layers {words}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        parts = {key: getattr(self, key).to_dict() for key in ("selection", "weight", "activation", "surrogate")}
        whole = {"schema": 1, **parts, "layers": list(self.layers)}
        if self.mixed:  # schema 2 only where it is needed: an earlier version would give every layer one scheme
            whole |= {"schema": 2, "mixed": {name: scheme.to_dict() for name, scheme in self.mixed.items()}}
        if self.tables is not None:  # and schema 3: an earlier version would compute the head in floats
            whole |= {"schema": 3, "tables": list(self.tables)}
        if self.tables and self.stored_tables != "int8":  # and schema 4: it would round them to int8
            whole |= {"schema": 4, "stored_tables": self.stored_tables}
        return whole

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ConversionRecord:
        """Inverse of `to_dict`. Raises FormatError when the record is of a newer schema or lacks a part."""
        if data.get("schema") not in _SCHEMAS:
            raise FormatError(
                f"{RECORD_FILE} has schema {data.get('schema')}; this version reads schemas "
                f"{', '.join(map(str, _SCHEMAS))}. Update bitnet_train."
            )
        try:
            return cls(
                layers=tuple(data["layers"]),
                weight=WeightScheme.from_dict(data["weight"]),
                activation=ActivationScheme.from_dict(data["activation"]),
                surrogate=surrogate_from_dict(data["surrogate"]),
                selection=Selection.from_dict(data["selection"]),
                mixed={name: WeightScheme.from_dict(scheme) for name, scheme in data.get("mixed", {}).items()},
                tables=tuple(data["tables"]) if "tables" in data else None,
                stored_tables=_table_type(data.get("stored_tables", "int8")),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{RECORD_FILE} is damaged: {error}. Convert the model again.") from error


def _table_type(text: str) -> TableType:
    for stored in TABLE_BITS:
        if text == stored:
            return stored
    raise ValueError(f"`stored_tables` is {text!r}, and may be {', '.join(TABLE_BITS)}")


def read_record(directory: str | Path) -> ConversionRecord:
    """The record of a folder. Raises FormatError when there is none, or it cannot be read."""
    path = Path(directory) / RECORD_FILE
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(
            f"{directory} is not a converted model: {RECORD_FILE} cannot be read ({error}). "
            "Give a folder that `save_converted` (the convert, train or merge stage) wrote."
        ) from error
    return ConversionRecord.from_dict(data)
