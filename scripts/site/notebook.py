"""A notebook as a page: its text as it stands, code and what it printed in blocks, pictures inline.

The outputs are those that are kept in the file; nothing is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FENCE = "````"  # longer than those that a text may have itself


def as_markdown(path: Path) -> str:
    """Return the Markdown of a notebook (nbformat 4)."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(block for cell in cells for block in _blocks(cell)) + "\n"


def _blocks(cell: dict[str, Any]) -> Iterator[str]:
    text = _joined(cell["source"])
    if cell["cell_type"] == "markdown":
        yield text
    elif cell["cell_type"] == "code" and text.strip():
        yield f"{FENCE}python\n{text}\n{FENCE}"
        for output in cell["outputs"]:
            yield from _shown(output)


def _shown(output: dict[str, Any]) -> Iterator[str]:
    data = output.get("data", {})
    if "image/png" in data:
        yield f'<img alt="what the cell above draws" src="data:image/png;base64,{_joined(data["image/png"]).strip()}">'
    elif printed := _joined(output.get("text", data.get("text/plain", ""))).strip("\n"):
        yield f"{FENCE}text\n{printed}\n{FENCE}"


def _joined(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)
