"""The first line of a run's config.yaml, by which a file that lost its end is told from one that a person edited.

    # 143 keys of a run, sha256 5f2c..., on the lines below
    recipe: quickstart
    ...

| what is there                                              | it is                                        |
|------------------------------------------------------------|----------------------------------------------|
| fewer keys than the first line counts, or no line at the end | cut: refused                               |
| as many keys, another hash                                 | edited, or a bit flipped: read, and said     |
| no such line, and the last section, `run`                  | of an older version: read                    |
| no such line, and no `run`                                 | cut, or no record of a run: refused          |

A run saves every key, so none is missing in a file that is whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import yaml

_FIRST = re.compile(r"# (\d+) keys of a run, sha256 ([0-9a-f]{64}), on the lines below\n")
_LAST_SECTION = "run"


def sealed(config_yaml: str) -> str:
    """Return a configuration as a run keeps it, its first line in front."""
    count, digest = num_keys(yaml.safe_load(config_yaml)), _sha256(config_yaml)
    return f"# {count} keys of a run, sha256 {digest}, on the lines below\n{config_yaml}"


def fault_of(text: str, content: Mapping[str, Any]) -> str | None:
    """Return in words what a run's file lacks, None where it is whole; `content` is what its `text` says."""
    first = _FIRST.match(text)
    if first is None:
        return None if isinstance(content.get(_LAST_SECTION), Mapping) else "it ends before its last section, `run`"
    if (count := num_keys(content)) < int(first[1]):
        return f"it has {count} of the {first[1]} keys that it was written with"
    return None if text.endswith("\n") else "its last line has no end"


def is_edited(text: str) -> bool:
    """Whether a file is not as its run wrote it; nothing is known of one without a seal."""
    first = _FIRST.match(text)
    return first is not None and first[2] != _sha256(text[first.end() :])


def num_keys(content: Mapping[str, Any]) -> int:
    """Return how many keys a configuration has, those of its sections counted one by one."""
    return sum(len(value) if isinstance(value, Mapping) else 1 for value in content.values())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
