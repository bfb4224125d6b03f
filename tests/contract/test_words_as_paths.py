"""`Path.exists` raises OSError for a word that is too long for a file system; `word_as_path.is_there` says no."""

from __future__ import annotations

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "bitnet_train"
MADE_AND_ASKED = re.compile(r"Path\([^()]*(\([^()]*\))?[^()]*\)(\.expanduser\(\))?\.(exists|is_file|is_dir)\(")


def asked(source: str) -> list[str]:
    return [found[0] for found in MADE_AND_ASKED.finditer(source)]


def test_no_word_is_made_a_path_and_asked_in_one_breath() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    found = {str(path): asked(path.read_text(encoding="utf-8")) for path in files}
    assert {path: questions for path, questions in found.items() if questions} == {}, "ask `bitnet_train.word_as_path`"


def test_such_a_question_is_seen() -> None:
    for code in ("Path(word).exists()", "Path(hub_id(word)).expanduser().is_dir()", "Path(str(text)).is_file()"):
        assert asked(code) != []
    assert asked("is_there(word)") == []
