"""A small file of chats, for the recipes that train on those."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CHATS = [
    {"messages": [{"role": "user", "content": f"{i} + 1?"}, {"role": "assistant", "content": f"It is {i + 1}."}]}
    for i in range(40)
]


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in CHATS))
    return path
