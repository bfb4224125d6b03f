r"""Halves of a UTF-16 pair that stand alone: JSON can spell one ("\ud83d"), Unicode text cannot hold it.

They come from texts that were cut between the two halves of an emoji. Tokenizers refuse them, so they are found where
the row is read, which knows its file and line. U+FFFD is Unicode's own mark for "a character that was lost".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bitnet_train.errors import DataError

_LONE = re.compile("[\ud800-\udfff]")


def refuse_lone_surrogates(where: str, field: str, value: Any) -> None:
    """Raise DataError when a string anywhere inside `value` holds one; `where` and `field` name it."""
    for text in _strings(value):
        found = None if _is_unicode(text) else _LONE.search(text)
        if found:
            start = found.start()
            before = text[max(0, start - 20) : start]
            raise DataError(
                f"{where}: field `{field}` holds half a surrogate pair, {ascii(found.group())[1:-1]}, after {before!r}:"
                " the text was cut inside a character.\nMend the row, or set `data.lone_surrogates=replace` to read"
                " U+FFFD in its place."
            )


def replace_lone_surrogates(value: Any) -> Any:
    """Return `value` with U+FFFD for every one in the strings inside it."""
    if isinstance(value, str):
        return value if _is_unicode(value) else _LONE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {replace_lone_surrogates(name): replace_lone_surrogates(item) for name, item in value.items()}
    if isinstance(value, list):
        return [replace_lone_surrogates(item) for item in value]
    return value


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for name, item in value.items() for text in (*_strings(name), *_strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []


def _is_unicode(text: str) -> bool:
    """Return whether the text can be written as UTF-8; far faster than searching it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
