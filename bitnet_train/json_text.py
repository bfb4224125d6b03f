"""JSON that anyone may have written: whatever is wrong with it is a `JSONDecodeError`, with line and column.

`json.loads` ends in RecursionError for 20,000 brackets, in a plain ValueError for a number of 5,000 digits, and what it
still takes at 900 levels makes the code behind it end so. No file that is read here nests deeper than a few levels.
Every JSON of a file is read here, those of a run's own folder too: a disk, or a person, may have changed them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

MOST_LEVELS = 64
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{\]}]', re.DOTALL)


def parse_json(
    text: str | bytes,
    *,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
    constant: Callable[[str], Any] | None = None,
) -> Any:
    """Return what the text says. Raises JSONDecodeError, for bytes that are not text UnicodeDecodeError.

    `pairs` makes an object of its keys and values, `constant` a number of NaN and infinities; a ValueError of either is
    one of the text.
    """
    source = text if isinstance(text, str) else text.decode(json.detect_encoding(text)).removeprefix("\ufeff")
    if source.count("[") + source.count("{") > MOST_LEVELS:
        _refuse_depth(source)
    try:
        return json.loads(source, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError:
        raise
    except RecursionError:  # of brackets that `_refuse_depth` took for a part of a text: a quote is missing
        raise json.JSONDecodeError("Nested too deep", source, 0) from None
    except ValueError as error:  # a number with more digits than Python reads
        raise json.JSONDecodeError(str(error).partition(";")[0], source, 0) from None


def _refuse_depth(source: str) -> None:
    level = 0
    for found in _STRING_OR_BRACKET.finditer(source):
        level += (found[0] in "[{") - (found[0] in "]}")
        if level > MOST_LEVELS:
            raise json.JSONDecodeError(f"Nested deeper than {MOST_LEVELS} levels", source, found.start())
