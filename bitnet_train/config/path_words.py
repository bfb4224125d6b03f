"""A path in place of a choice.

data=FILE          data.path=FILE data.source=files          a file, a folder or a glob
model=FOLDER       model.source=FOLDER                       a folder or a GGUF file
"""

from __future__ import annotations

import re
from typing import Any

from bitnet_train.config.layout import groups
from bitnet_train.config.values import COMMAND_LINE, read_value
from bitnet_train.errors import ConfigError
from bitnet_train.word_as_path import is_there, path_of

DATA_SUFFIX = re.compile(r"\.(jsonl?|ndjson|csv|tsv|parquet|arrow|txt|md|gz|bz2|xz|zst)$", re.IGNORECASE)


def path_values(group: str, text: str) -> dict[str, Any] | None:
    """Return the keys that `data=FILE` or `model=FOLDER` stand for; None where `text` is a choice or no path.

    Raises ConfigError where the word can only be a path, and nothing lies there.
    """
    if group not in _MEANS or text in groups()[group]:
        return None
    if not is_there(path_of(text)) and not re.search(r"[*?\[]", text):
        if "/" in text or DATA_SUFFIX.search(text):
            raise ConfigError(
                f"`{group}={text}` ({COMMAND_LINE}): there is no such file or folder, and no such choice. {_HUB[group]}"
            )
        return None
    key, further = _MEANS[group]
    return {key: read_value(key, f"{key}={text}"), **further}


_MEANS: dict[str, tuple[str, dict[str, Any]]] = {
    "data": ("data.path", {"data.source": "files"}),
    "model": ("model.source", {}),
}
_HUB = {
    "data": "A data set of the hub is asked for with `data=hub data.path=OWNER/NAME`.",
    "model": "A model of the hub is asked for with `model.source=OWNER/NAME`.",
}
