'''What is typed becomes a message: one line, or several.

    a backslash at the end of a line      goes on in the next, without the backslash
    """three quotes                        go on until the next three, over as many lines as it takes
    /system """the same                    in the words of a command

In a terminal Alt-Enter begins a new line too, and what is pasted is taken as it is.
'''

from __future__ import annotations

import re

from bitnet_train.errors import DataError

MOST_CHARACTERS = 1_000_000  # of one message: more than any context, and little enough to be cut into tokens at once
BLOCK = '"""'
_BEGINS = re.compile(rf"\s*(?:/\w+\s+)?{BLOCK}")


def is_open(text: str) -> bool:
    """Whether a block of three quotes begins in `text` and does not end in it."""
    begun = _BEGINS.match(text)
    return begun is not None and BLOCK not in text[begun.end() :]


def goes_on(line: str) -> bool:
    """Whether a line outside a block ends with a backslash that is not escaped by another."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def unquoted(text: str) -> str:
    """Return a message without the quotes of its block; one break after the first and before the last goes too."""
    begun = _BEGINS.match(text)
    if begun is None:
        return text
    inside, _, after = text[begun.end() :].partition(BLOCK)
    return text[: begun.end() - len(BLOCK)] + inside.removeprefix("\n").removesuffix("\n") + after


def is_block(text: str) -> bool:
    """Whether a text begins with three quotes, and so is a message even where a slash follows."""
    return text.lstrip().startswith(BLOCK)


def checked(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return the text. Raises DataError for more than any context takes, and for bytes that are no text."""
    if len(text) > most:
        raise DataError(
            f"That message has {len(text):,} characters, and one of more than {most:,} is not taken. Nothing was sent: "
            "ask about a part of it."
        )
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError("That message holds bytes that are not UTF-8. Nothing was sent: use a UTF-8 terminal.")
    return text
