"""Every `bitnet-train VERB` that a message, a page or a docstring names is a verb of the table."""

from __future__ import annotations

import re
from pathlib import Path

from bitnet_train.verbs import VERBS

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`bitnet-train ([a-z_]+)")
FILES = [*(ROOT / "bitnet_train").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]


def test_every_verb_that_is_named_is_one() -> None:
    named = {path: set(NAMED.findall(path.read_text(encoding="utf-8"))) for path in FILES}
    assert {str(path): verbs - {*VERBS, "again"} for path, verbs in named.items() if verbs - {*VERBS, "again"}} == {}
    assert set().union(*named.values()) > {"run", "validate"}


def test_another_word_is_seen() -> None:
    assert set(NAMED.findall("Run `bitnet-train budget runs/x` again.")) - VERBS.keys() == {"budget"}
