"""The part of a page that a script writes, between two markers that name it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path


def keep_block(page: Path, name: str, script: str, lines: Sequence[str], *, check: bool) -> int:
    """Write `lines` between the markers of `name`, or with `check` only compare; return the exit status.

    The markers are `<!-- NAME: written by scripts/FOLDER/SCRIPT.py -->` and `<!-- /NAME -->`, each once on the
    page; `script` is FOLDER.SCRIPT.
    """
    before = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: written by scripts/{script.replace('.', '/')}.py -->", f"<!-- /{name} -->"
    if before.count(begin) != 1 or before.count(end) != 1:
        raise SystemExit(f"{page.name}: `{begin}` and `{end}` must each stand there once.")
    head, rest = before.split(begin)
    after = "\n".join([head + begin, *lines, end]) + rest.split(end)[1]
    if not check:
        page.write_text(after, encoding="utf-8")
    elif before != after:
        print(f"{page.name} is stale: run `python -m scripts.{script} --tables`", file=sys.stderr)
        return 1
    return 0
