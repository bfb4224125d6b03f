"""Choose the block types of a file: one for all layers of a scheme, and never a layer kept in floats instead.

A GGUF says of every tensor what type it is, so a model of mixed schemes has a type for each: binary layers can be Q1_0
beside ternary ones in Q2_0. Layers of one scheme share a type although some could have a smaller one: a reader sees
what was trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.formats.ggml import GGML_TYPES, GgmlType, why_not
from bitnet_train.packed.manifest import LayerEntry

AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """The block type of every 1-bit layer by name, why they were taken, and why each smaller one was not."""

    kinds: Mapping[str, GgmlType]
    main: GgmlType
    """The type of most weights: what the file as a whole is called."""
    bits_per_weight: float
    """Bits of the file per 1-bit weight, scales included."""
    why: str
    rejected: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of the types, that of most layers first."""
        return [name for name, _ in self.counts]

    @property
    def counts(self) -> list[tuple[str, int]]:
        """Every type with how many layers have it, most first."""
        return Counter(kind.name for kind in self.kinds.values()).most_common()


def choose_type(layers: Sequence[LayerEntry], asked: str) -> Choice:
    """Return the type that `export.type` asks for; for `auto` the smallest that every layer of a scheme fits.

    Raises ConfigError for an unknown name, FormatError naming the first layer that does not fit, and what would.
    """
    if asked != AUTO and asked not in GGML_TYPES:
        raise ConfigError(f"`export.type={asked}` is not known. Allowed: {AUTO}, {', '.join(GGML_TYPES)}.")
    if asked == AUTO:
        return _smallest_of_each_scheme(layers)
    misfit = _first_misfit(layers, asked)
    if misfit is not None:
        raise FormatError(f"`export.type={asked}`: {_sentence(*misfit)} {_fix(misfit[0])}")
    return _choice(layers, {layer.name: GGML_TYPES[asked] for layer in layers}, "asked for", {})


def _smallest_of_each_scheme(layers: Sequence[LayerEntry]) -> Choice:
    alike: dict[str, list[LayerEntry]] = {}
    for layer in layers:
        alike.setdefault(layer.scheme.describe(), []).append(layer)
    kinds: dict[str, GgmlType] = {}
    rejected: dict[str, str] = {}
    reasons: list[str] = []
    for words, some in alike.items():
        kind, smaller = _smallest(some)
        kinds |= dict.fromkeys((layer.name for layer in some), kind)
        rejected |= {name: reason for name, reason in smaller.items() if name not in rejected}
        reasons.append(f"{kind.name} for {len(some)} {words}")
    why = f"the smallest that all {len(layers)} 1-bit layers fit"
    if len(alike) > 1:
        why = f"the smallest that the layers of each scheme fit, {', '.join(reasons)}"
    return _choice(layers, {layer.name: kinds[layer.name] for layer in layers}, why, rejected)


def _smallest(layers: Sequence[LayerEntry]) -> tuple[GgmlType, dict[str, str]]:
    rejected: dict[str, str] = {}
    for kind in sorted(GGML_TYPES.values(), key=lambda kind: kind.bits_per_weight):
        misfit = _first_misfit(layers, kind.name)
        if misfit is None:
            return kind, rejected
        rejected[kind.name] = f"{misfit[0].name}: {misfit[1]}"
    reasons = " ".join(f"{name}: {reason}." for name, reason in rejected.items())
    raise FormatError(f"`export.type=auto`: no block type of llama.cpp holds every 1-bit layer. {reasons} {_WIDER}")


def _choice(layers: Sequence[LayerEntry], kinds: Mapping[str, GgmlType], why: str, rejected: dict[str, str]) -> Choice:
    weights: Counter[str] = Counter()
    for layer in layers:
        weights[kinds[layer.name].name] += layer.num_outputs * layer.num_inputs
    bits = sum(GGML_TYPES[name].bits_per_weight * count for name, count in weights.items())
    main, _ = weights.most_common(1)[0]
    return Choice(kinds, GGML_TYPES[main], bits / weights.total(), why, rejected)


def _first_misfit(layers: Sequence[LayerEntry], type_name: str) -> tuple[LayerEntry, str] | None:
    return next(((layer, reason) for layer in layers if (reason := why_not(layer, type_name))), None)


def _sentence(layer: LayerEntry, reason: str) -> str:
    return f"{layer.name} ({layer.num_outputs} x {layer.num_inputs}, {layer.scheme.describe()}) does not fit: {reason}."


_WIDER = (
    "A block needs whole blocks of inputs under one scale: convert with `weight.granularity=row` or a `group_size` "
    "that is a multiple of 64 or 128 (32 with several planes), and leave layers whose inputs are no multiple of that "
    "out of `select`."
)


def _fix(layer: LayerEntry) -> str:
    fitting = [name for name in GGML_TYPES if not why_not(layer, name)]
    return f"Types that hold it: {', '.join(fitting)}; or `export.type=auto`." if fitting else _WIDER
