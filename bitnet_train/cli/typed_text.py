"""Text as it comes from a shell: words in any encoding, a prompt on standard input, a terminal with few letters."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from bitnet_train.errors import ConfigError

STANDARD_INPUT = "-"


def decoded(words: Sequence[str]) -> list[str]:
    """Return the words with the bytes that the locale could not read taken as UTF-8; ConfigError where they are not."""
    return [_decoded(word) for word in words]


def read_prompt(text: str) -> str:
    """Return the text, or all of standard input (UTF-8, without the last newline) where it is `-`."""
    if text != STANDARD_INPUT:
        return text
    given = sys.stdin.buffer.read()
    try:
        return given.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"Standard input is not UTF-8: byte {given[error.start]:#04x} at position {error.start}. "
            "Convert it first, for instance with `iconv -f latin1 -t utf-8`."
        ) from None


def print_everything() -> None:
    """Have letters that standard output or error cannot encode printed as escapes instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _decoded(word: str) -> str:
    if word.isprintable() or not any("\ud800" <= letter <= "\udfff" for letter in word):
        return word
    given = word.encode(sys.getfilesystemencoding(), "surrogateescape") if os.name != "nt" else b"\xff"
    try:
        return given.decode()
    except UnicodeDecodeError:
        shown = word.encode("ascii", "backslashreplace").decode()
        raise ConfigError(
            f"`{shown}` (command line) is not UTF-8. Use a UTF-8 terminal, or convert the text."
        ) from None
