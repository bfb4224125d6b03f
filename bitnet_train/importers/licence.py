"""The licence of an original, where it says one: in the head of its card, or in the metadata of a GGUF."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from bitnet_train.gguf.file import open_gguf
from bitnet_train.importers.found import find_model
from bitnet_train.importers.load import CARD_NAME, tiny_folder
from bitnet_train.importers.source import hub_id
from bitnet_train.packed.card_data import LICENCE_FACT
from bitnet_train.packed.reader import read_manifest

_READ_CHARACTERS = 1 << 16  # of a card, whose head comes first
_LONGEST = 100  # characters of a licence's name
_HEAD = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_LICENCE = re.compile(r"^license:[ \t]*['\"]?([\w.+\-]+)['\"]?[ \t]*$", re.MULTILINE)


def licence_of(source: str) -> str | None:
    """Return the licence of what `source` names, as it is spelled there; None where none is said.

    Nothing is fetched: of a hub id the card in the cache is read.
    """
    found = find_model(source)
    try:
        if found.kind == "gguf":
            return _named(open_gguf(found.path).metadata.get("general.license"))
        if found.kind == "packed":
            return _named(read_manifest(found.path).facts.get(LICENCE_FACT))
        if found.kind == "tiny":
            return _of_card(tiny_folder())
        if found.kind == "folder":
            return _of_card(found.path)
        return _of_card(Path(snapshot_download(hub_id(source), local_files_only=True))) if found.kind == "hub" else None
    except Exception:  # of any kind: a cache may lack it, a file be damaged, and neither is worth a run
        return None


def _of_card(folder: Path) -> str | None:
    """Return what the one line says; a card is anybody's YAML, and could keep a parser busy for long."""
    with (folder / CARD_NAME).open(encoding="utf-8", errors="replace") as file:
        head = _HEAD.match(file.read(_READ_CHARACTERS))
    said = None if head is None else _LICENCE.search(head[1])
    return None if said is None else _named(said[1])


def _named(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable() else None
