"""Text for a terminal of 80 columns: names beside their meanings, long lines folded, commands folded as a shell reads.

A word longer than a line (a path, a list) is never cut.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

WIDTH = 80
_WORD = re.compile(r'(?:"[^"]*"|\S)+')


def fold(text: str, indent: int = 0, first: int | None = None) -> str:
    """Return `text` in lines of at most `WIDTH`, indented by `indent`, the first line by `first`."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=" " * (indent if first is None else first),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def fold_named(rows: Iterable[tuple[str, str]], indent: int = 2) -> str:
    """Return one row a name, all meanings beginning in the same column, two spaces after the longest name."""
    rows = list(rows)
    width = indent + max((len(name) for name, _ in rows), default=0) + 2
    return "\n".join(_row(name, meaning, indent, width) for name, meaning in rows)


def fold_command(command: str, indent: int = 2) -> str:
    """Return a command in lines that end in a backslash, so that it can be pasted as it stands."""
    lines = [" " * indent]
    for word in _WORD.findall(command):
        joined = f"{lines[-1]} {word}" if lines[-1].strip() else lines[-1] + word
        if len(joined) + 2 > WIDTH and lines[-1].strip():  # room for " \"
            lines[-1] += " \\"
            joined = " " * (indent + 4) + word
            lines.append(joined)
        else:
            lines[-1] = joined
    return "\n".join(lines)


def _row(name: str, meaning: str, indent: int, width: int) -> str:
    if not meaning:
        return " " * indent + name
    return " " * indent + name.ljust(width - indent) + fold(meaning, width).lstrip()
