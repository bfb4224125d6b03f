"""The bounds of a configuration file, held before anything is built from it.

A file of ten lines can stand for 10^9 values (an alias of aliases), and 20,000 brackets end the parser in
RecursionError. What a file says is counted on the events of the parser, which keeps no tree: an alias counts as all
that it stands for.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from bitnet_train.errors import ConfigError

MOST_BYTES, MOST_LEVELS, MOST_NODES = 1 << 20, 32, 10_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same events, an order of magnitude sooner
_Size = tuple[int, int]  # nodes, levels


def read_text(path: Path, label: str) -> str:
    """Return the text of a file. Raises ConfigError where it is too long, UnicodeDecodeError, OSError."""
    with path.open("rb") as file:
        given = file.read(MOST_BYTES + 1)
    if len(given) > MOST_BYTES:
        raise ConfigError(f"{label}: a configuration has at most {MOST_BYTES >> 20} MiB, and this file is larger.")
    return given.decode("utf-8-sig")


def check_bounds(text: str, label: str) -> None:
    """Raise ConfigError, which names the file by its `label`, for too many values or levels; YAMLError as parsing."""
    sizes: dict[str, _Size] = {}  # of what has an anchor
    inside: list[tuple[str | None, _Size]] = [(None, (0, 0))]  # what is being read, with what it holds so far
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            inside.append((event.anchor, (1, 1)))
        elif isinstance(event, yaml.CollectionEndEvent):
            _put(inside, sizes, *inside.pop())
        elif isinstance(event, yaml.ScalarEvent):
            _put(inside, sizes, event.anchor, (1, 0))
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in inside):
                raise ConfigError(f"{label}: `*{event.anchor}` stands inside what it names, so it never ends.")
            _put(inside, sizes, None, sizes.get(event.anchor, (1, 0)))
        nodes = sum(size[0] for _, size in inside)
        levels = max(at + size[1] for at, (_, size) in enumerate(inside))
        if nodes > MOST_NODES or levels > MOST_LEVELS + 1:
            raise ConfigError(
                f"{label}: a configuration has at most {MOST_NODES:,} values, those behind an alias counted, and "
                f"{MOST_LEVELS} levels. This file has more."
            )


def _put(inside: list[tuple[str | None, _Size]], sizes: dict[str, _Size], anchor: str | None, size: _Size) -> None:
    """Add what was read to what it lies in, and remember it under its anchor."""
    if anchor is not None:
        sizes[anchor] = size
    outer, (nodes, levels) = inside[-1]
    inside[-1] = outer, (nodes + size[0], max(levels, 1 + size[1]))
