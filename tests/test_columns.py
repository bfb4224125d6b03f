"""Text of 80 columns: nothing is lost, nothing runs into its neighbour, and a folded command is still one command."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from bitnet_train.columns import WIDTH, fold, fold_command, fold_named
from bitnet_train.verbs import VERBS

WORDS = "a name and what it means, said at such length that it takes more than one line of a terminal to say it"


def test_a_meaning_begins_two_columns_after_the_longest_name_in_every_row() -> None:
    lines = fold_named([("ls", "short"), ("reconstruct", WORDS)]).splitlines()
    assert lines[0] == "  ls           short"
    assert lines[1].startswith("  reconstruct  a name and what it means")
    assert len(lines) > 2
    assert all(line.startswith(" " * 15) and line[15] != " " for line in lines[2:])
    assert max(map(len, lines)) <= WIDTH


def test_a_name_without_a_meaning_keeps_its_line() -> None:
    assert fold_named([("quickstart", "")]) == "  quickstart"


def test_folding_keeps_every_word_and_cuts_none() -> None:
    path = "x" * 200
    assert fold(f"{WORDS} {path}", 4).split() == [*WORDS.split(), path]


@pytest.mark.parametrize("example", [example for verb in VERBS.values() for example in verb.examples])
def test_a_folded_command_is_the_same_to_a_shell(example: str) -> None:
    folded = fold_command(example)
    read = subprocess.run(["sh", "-fc", f"printf '%s\\n' {folded}"], capture_output=True, text=True, check=True).stdout
    assert read.splitlines() == shlex.split(example)
    assert max(map(len, folded.splitlines())) <= WIDTH
