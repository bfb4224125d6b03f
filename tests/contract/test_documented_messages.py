"""Every message that docs/troubleshooting.md quotes is one that the program has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)


@cache
def texts() -> str:
    """Return all literal texts of the package, one a line, with what is formatted into them as `…`."""
    sources = (ROOT / "bitnet_train").rglob("*.py")
    return "\n".join(text.replace("\n", " ") for path in sources for text in _texts(ast.parse(path.read_bytes())))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def is_said(message: str) -> bool:
    """Whether one text of the program has the message; its `…` may stand for anything."""
    pattern = ".*".join(re.escape(part.strip()) for part in message.split("…"))
    return re.search(pattern, texts()) is not None


@pytest.mark.parametrize("message", QUOTED)
def test_a_quoted_message_is_one_of_the_program(message: str) -> None:
    assert is_said(message)


def test_the_page_quotes_messages_and_another_would_be_seen() -> None:
    assert len(QUOTED) > 20
    assert not is_said("there is no such key at all")
    assert not is_said("is not finite … and was written")
