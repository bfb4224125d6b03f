"""Where a given number of further bytes helps most, as entries of `weight.overrides`.

Each part can become ternary or stay float. That lowers the KL divergence that it causes alone, and costs bytes; the
best ratio is taken first, as long as it fits and shares no layer with what was taken before. The sum over parts is an
estimate: errors of different layers add up only roughly, and training repairs some of them better than others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bitnet_train.sensitivity.parts import Part
from bitnet_train.sensitivity.scan import Result


@dataclass(frozen=True)
class Suggestion:
    """One entry: what the part becomes, the nats of KL divergence it saves alone, and the bytes it costs."""

    part: Part
    becomes: Literal["ternary", "float"]
    saved_nats: float
    extra_bytes: int

    @property
    def entry(self) -> dict[str, Any]:
        """The entry of `weight.overrides`."""
        return {"pattern": self.part.pattern, **({"name": "ternary"} if self.becomes == "ternary" else {"keep": True})}


def suggest(results: Iterable[Result], extra_bytes: float) -> list[Suggestion]:
    """Return disjoint entries that together cost at most `extra_bytes`, the best ratio first."""
    left, taken, chosen = extra_bytes, set[str](), list[Suggestion]()
    options = [option for result in results for option in _options(result)]
    for option in sorted(options, key=lambda option: -option.saved_nats / option.extra_bytes):
        if option.extra_bytes <= left and not taken & set(option.part.names):
            left, taken = left - option.extra_bytes, taken | set(option.part.names)
            chosen.append(option)
    return chosen


def override_word(entries: Sequence[dict[str, Any]]) -> str:
    """Return the entries as one word of the command line, quoted for a shell."""
    written = [",".join(f"{key}:{_value(value)}" for key, value in entry.items()) for entry in entries]
    return f"'weight.overrides=[{','.join(f'{{{entry}}}' for entry in written)}]'"


def _options(result: Result) -> list[Suggestion]:
    options = [Suggestion(result.part, "float", result.only.kl, result.float_bytes - result.planned_bytes)]
    if result.ternary is not None and result.ternary_bytes is not None:
        saved, extra = result.only.kl - result.ternary.kl, result.ternary_bytes - result.planned_bytes
        options.append(Suggestion(result.part, "ternary", saved, extra))
    return [option for option in options if option.saved_nats > 0 and option.extra_bytes > 0]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) and not value.replace("_", "").isalnum() else str(value)
