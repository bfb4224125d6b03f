"""Every `bitnet-train VERB` that a message, a page or a docstring names is a verb of the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitnet_train.verbs import VERBS

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`bitnet-train ([a-z_]+)")
FILES = [*(ROOT / "bitnet_train").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]


@pytest.mark.parametrize("path", sorted(FILES), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_verb_that_is_named_is_one(path: Path) -> None:
    assert set(NAMED.findall(path.read_text(encoding="utf-8"))) <= {*VERBS, "again"}


def test_another_word_is_seen() -> None:
    assert set(NAMED.findall("Run `bitnet-train budget runs/x` again.")) - VERBS.keys() == {"budget"}
