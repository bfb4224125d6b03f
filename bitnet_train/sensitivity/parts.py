"""The parts of a model that are tried one by one: families of layers, decoder blocks, and single layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bitnet_train.model.patterns import matches, star_numbers

Kind = Literal["family", "block", "layer"]
KINDS: tuple[Kind, ...] = ("family", "block", "layer")

_BLOCK = re.compile(r"(?:.*\.)?(\w+\.\d+)\.")


@dataclass(frozen=True)
class Part:
    """Some layers that one pattern of `weight.overrides` names: exactly these of the layers that are converted."""

    kind: Kind
    pattern: str
    names: tuple[str, ...]


def parts_of(names: Sequence[str], *, layers: bool = False) -> list[Part]:
    """Return the families (`mlp.down_proj` of every block), the blocks (`layers.3.*`), and with `layers` each layer.

    A part that holds the same layers as an earlier one, such as the block of a model that has one, is left out.
    """
    found = [*_grouped("family", names, star_numbers), *_grouped("block", names, _block)]
    if layers:
        found += [Part("layer", name, (name,)) for name in names]
    return list({part.names: part for part in reversed(found)}.values())[::-1]


def _grouped(kind: Kind, names: Sequence[str], key: Callable[[str], str]) -> list[Part]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return [Part(kind, _shortest(pattern, some, names), tuple(some)) for pattern, some in groups.items() if pattern]


def _block(name: str) -> str:
    """`model.layers.3.mlp.down_proj` to `model.layers.3.*`; nothing for a layer outside the blocks."""
    inside = _BLOCK.match(name)
    return f"{name[: inside.end(1)]}.*" if inside else ""


def _shortest(pattern: str, hits: Iterable[str], names: Iterable[str]) -> str:
    """The shortest dotted tail of two words or more that begins with a word and fits the same layers."""
    words, wanted = pattern.split("."), list(hits)
    for start in range(len(words) - 2, -1, -1):
        tail = ".".join(words[start:])
        if tail[0].isalpha() and [name for name in names if matches(name, tail)] == wanted:
            return tail
    return pattern
