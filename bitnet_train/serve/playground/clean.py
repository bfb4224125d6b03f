"""No path of the disk in an answer: errors of libraries and lines of logs name files, and say more than they should.

A place that is known, such as the file of a model, becomes its name; of any other absolute path the last part remains.
Text that a model wrote or a person typed is theirs and stays as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

_PART = r"[^\s/\\'\"`:,;()<>|]+"
_PATH = re.compile(rf"(?<![\w:/.~-])(?:~|[A-Za-z]:)?(?:[/\\]{_PART})*[/\\]({_PART})[/\\]?")
_RELATIVE_UP = re.compile(rf"(?<![\w/])(?:\.\.?/)+(?:{_PART}/)*({_PART})")


class Names:
    """What places are called."""

    def __init__(self, places: Mapping[str, str] | None = None) -> None:
        self._places: dict[str, str] = {}
        for place, name in (places or {}).items():
            self.know(place, name)

    def know(self, place: str | os.PathLike[str], name: str) -> None:
        """Call a place, as given, as absolute and as real path, by a name."""
        given = os.fspath(place)
        for form in {given, os.path.abspath(given), os.path.realpath(given)}:  # noqa: PTH100  of a word, not a Path
            if os.sep in form:
                self._places[form] = name

    def clean(self, text: str) -> str:
        """Return the text without paths."""
        for place in sorted(self._places, key=len, reverse=True):
            text = text.replace(place, self._places[place])
        return _RELATIVE_UP.sub(r"\1", _PATH.sub(r"\1", text))

    def clean_all(self, value: Any) -> Any:
        """Return a value of JSON with every text in it cleaned."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, Mapping):
            return {self.clean(str(key)): self.clean_all(item) for key, item in value.items()}
        return [self.clean_all(item) for item in value] if isinstance(value, list | tuple) else value
