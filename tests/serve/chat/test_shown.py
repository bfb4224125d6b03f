"""Nothing of a stranger's text steers the terminal."""

from __future__ import annotations

import unicodedata

import pytest

from bitnet_train.serve.chat.shown import in_line, shown


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("real\rfake", "real\\x0dfake"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("a\U000e0041b", "a\\U000e0041b"),
        ("\ud800", "\\ud800"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("Grüße, 世界, 🙂", "Grüße, 世界, 🙂"),
    ],
)
def test_what_steers_a_terminal_or_hides_is_written_out_and_all_else_stays(raw: str, safe: str) -> None:
    assert shown(raw) == safe


def test_no_control_character_of_unicode_passes_but_line_breaks_and_tabs() -> None:
    everything = "".join(map(chr, range(0x3000)))
    left = {letter for letter in shown(everything) if unicodedata.category(letter) == "Cc"}
    assert left == {"\n", "\t"}


def test_pieces_are_shown_as_the_whole_would_be() -> None:
    text = "a\x1b[2Jb\u2066c"
    assert "".join(map(shown, text)) == shown(text)


def test_inside_a_line_a_break_is_written_out_and_a_long_text_is_cut() -> None:
    assert in_line("a\nb\x1b") == "a\\nb\\x1b"
    assert in_line("x" * 300, 10) == "x" * 10 + "..."
