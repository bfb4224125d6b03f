"""What the page can make of a layer, by the words it uses: float, or codes in groups of 64 inputs.

A layer whose inputs are no multiple of 64 has a scale a row instead. Scales are float16, a weight that stays float
counts two bytes, as it would be stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from bitnet_train.quant.scheme import WeightScheme

GROUP_SIZE = 64
FLOAT = "float"


@dataclass(frozen=True)
class Choice:
    """One row of the page's list; `scheme` None stays float."""

    label: str
    scheme: WeightScheme | None

    @property
    def bits(self) -> float:
        """Bits a weight, scales counted."""
        return 16.0 if self.scheme is None else self.scheme.num_planes + 16 / GROUP_SIZE


def _planes(count: int) -> WeightScheme:
    return WeightScheme("binary", "group", GROUP_SIZE, planes=count)


SCHEMES: Mapping[str, Choice] = MappingProxyType(
    {
        FLOAT: Choice("float", None),
        "binary": Choice("±1", _planes(1)),
        "ternary": Choice("−1, 0, +1", WeightScheme("ternary", "group", GROUP_SIZE)),
        "binary2": Choice("2 planes", _planes(2)),
        "binary3": Choice("3 planes", _planes(3)),
        "binary4": Choice("4 planes", _planes(4)),
    }
)


def scheme_for(word: str, num_inputs: int) -> WeightScheme | None:
    """Return the scheme of a layer with so many inputs; None for `float`. KeyError for another word."""
    scheme = SCHEMES[word].scheme
    if scheme is None or num_inputs % GROUP_SIZE == 0:
        return scheme
    return replace(scheme, granularity="row", group_size=WeightScheme().group_size)


def described() -> list[dict[str, Any]]:
    """Return the list as the page has it."""
    return [{"id": word, "label": choice.label, "bits": choice.bits} for word, choice in SCHEMES.items()]
