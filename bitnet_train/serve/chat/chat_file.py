"""A conversation as a file: a JSON list of messages, which `generate.messages` reads too.

A file is replaced only where it holds a conversation, for its name comes from whoever types.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bitnet_train.errors import BitnetTrainError, DataError
from bitnet_train.runtime.messages import read_messages
from bitnet_train.serve.chat.conversation import Message
from bitnet_train.serve.chat.shown import in_line
from bitnet_train.whole import write_whole
from bitnet_train.word_as_path import is_file, is_there, path_of

_MOST_BYTES = 64 << 20


def load_chat(word: str, named: str = "/load") -> list[Message]:
    """Return the messages of a file; DataError where there is none, or it holds something else."""
    path = path_of(word)
    if not is_file(path):
        raise DataError(f"`{named} {in_line(word)}`: there is no such file. Name one that `/save FILE` wrote.")
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"`{named} {in_line(word)}`: more than {_MOST_BYTES >> 20} MiB are no conversation.")
    return read_messages(path, f"{named} {in_line(word)}")


def save_chat(word: str, messages: Sequence[Message]) -> Path:
    """Write the messages, and return where.

    Raises DataError without messages, or where something else than a conversation is there, DiskError for the disk.
    """
    path = path_of(word)
    if not messages:
        raise DataError("There is nothing to save yet: ask something first.")
    if not word.isprintable():
        raise DataError(f"`/save {in_line(word)}`: that name holds characters that cannot be seen. Name another file.")
    if is_there(path) and not _is_chat(word):
        raise DataError(f"`/save {in_line(word)}`: that is there, and no conversation. Name another file.")
    write_whole(path, json.dumps(list(messages), indent=1, ensure_ascii=False) + "\n")
    return path.absolute()


def _is_chat(word: str) -> bool:
    try:
        load_chat(word)
    except BitnetTrainError:
        return False
    return True
