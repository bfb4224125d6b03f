"""Choose the block type of a file: one for all 1-bit layers, and never a layer kept in floats instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.exporters.manifest import LayerEntry
from bitnet_train.formats.ggml import GGML_TYPES, GgmlType, why_not

AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """A block type, why it was taken, and why each smaller one was not."""

    kind: GgmlType
    why: str
    rejected: dict[str, str] = field(default_factory=dict)


def choose_type(layers: Sequence[LayerEntry], asked: str) -> Choice:
    """Return the type that `export.type` asks for; for `auto` the smallest that every layer fits.

    Raises ConfigError for an unknown name, FormatError naming the first layer that does not fit, and what would.
    """
    if asked != AUTO and asked not in GGML_TYPES:
        raise ConfigError(f"`export.type={asked}` is not known. Allowed: {AUTO}, {', '.join(GGML_TYPES)}.")
    if asked != AUTO:
        misfit = _first_misfit(layers, asked)
        if misfit is not None:
            raise FormatError(f"`export.type={asked}`: {_sentence(*misfit)} {_fix(misfit[0])}")
        return Choice(GGML_TYPES[asked], "asked for")
    return _smallest(layers)


def _smallest(layers: Sequence[LayerEntry]) -> Choice:
    rejected: dict[str, str] = {}
    for kind in sorted(GGML_TYPES.values(), key=lambda kind: kind.bits_per_weight):
        misfit = _first_misfit(layers, kind.name)
        if misfit is None:
            return Choice(kind, f"the smallest that all {len(layers)} 1-bit layers fit", rejected)
        rejected[kind.name] = f"{misfit[0].name}: {misfit[1]}"
    reasons = " ".join(f"{name}: {reason}." for name, reason in rejected.items())
    raise FormatError(f"`export.type=auto`: no block type of llama.cpp holds every 1-bit layer. {reasons} {_WIDER}")


def _first_misfit(layers: Sequence[LayerEntry], type_name: str) -> tuple[LayerEntry, str] | None:
    return next(((layer, reason) for layer in layers if (reason := why_not(layer, type_name))), None)


def _sentence(layer: LayerEntry, reason: str) -> str:
    return f"{layer.name} ({layer.num_outputs} x {layer.num_inputs}, {layer.scheme.describe()}) does not fit: {reason}."


_WIDER = (
    "A block needs whole blocks of inputs under one scale: convert with `weight.granularity=row` or a `group_size` "
    "that is a multiple of 64 or 128, and leave layers whose inputs are no multiple of 64 out of `select`."
)


def _fix(layer: LayerEntry) -> str:
    fitting = [name for name in GGML_TYPES if not why_not(layer, name)]
    return f"Types that hold it: {', '.join(fitting)}; or `export.type=auto`." if fitting else _WIDER
