"""`Path.exists` raises OSError for a word that is too long for a file system; `word_as_path.is_there` says no."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "bitnet_train"
MADE_AND_ASKED = re.compile(r"Path\([^()]*(\([^()]*\))?[^()]*\)(\.expanduser\(\))?\.(exists|is_file|is_dir)\(")


def asked(source: str) -> list[str]:
    return [found[0] for found in MADE_AND_ASKED.finditer(source)]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_word_is_made_a_path_and_asked_in_one_breath(path: Path) -> None:
    assert asked(path.read_text(encoding="utf-8")) == [], "ask `bitnet_train.word_as_path`"


def test_such_a_question_is_seen() -> None:
    for code in ("Path(word).exists()", "Path(hub_id(word)).expanduser().is_dir()", "Path(str(text)).is_file()"):
        assert asked(code) != []
    assert asked("is_there(word)") == []
