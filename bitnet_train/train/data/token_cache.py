"""Tokenised rows on disk, keyed by everything that decides them.

key = sha256(cache version, content of the examples, the tokenizer's own serialisation, the settings that matter), so
a changed file, tokenizer, template or context length is another key, and a stale cache cannot be read.

    tokens-<key, 16 hex digits>.safetensors
      train.input_ids      int32 [R, L]      train.trained      uint8 [R, L]      train.lengths      int32 [R]
      validation.*         the same
      metadata             key, facts (JSON), sha256 over facts and tensors

Written to a sibling and renamed, so a reader never sees half a file; the hash is checked on every read, and a damaged
cache is reported and made again. A cache that cannot be written (disk full, read-only) costs time, not the run.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from transformers import PreTrainedTokenizerBase

from bitnet_train.errors import DataError, DiskError
from bitnet_train.json_text import parse_json
from bitnet_train.train.data.chunk import TokenRows
from bitnet_train.whole import whole_file

CACHE_VERSION = 2
SPLITS = ("train", "validation")

log = logging.getLogger(__name__)


def digest(*parts: object) -> str:
    """SHA-256, in hex, of JSON-serialisable parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over what decides the ids: the fast tokenizer's serialisation, its chat template, its special ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise DataError(f"{type(tokenizer).__name__} has no serialisation to key a cache with; use a fast tokenizer.")
    state = json.loads(backend.to_str())
    state.pop("padding", None)  # set by whoever called the tokenizer last
    state.pop("truncation", None)
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    return digest(state, tokenizer.chat_template, special)


def cache_path(folder: Path, key: str) -> Path:
    """Return the file of this key."""
    return folder / f"tokens-{key[:16]}.safetensors"


def write_cache(path: Path, content: bytes) -> None:
    """Write whole or not at all; a disk that is full or read-only is only reported."""
    try:
        with whole_file(path) as draft:
            draft.write_bytes(content)
    except DiskError as error:
        log.warning("A cache is left out, and the work will be repeated next time. %s", error)


def save_rows(folder: Path, key: str, rows: Mapping[str, TokenRows], facts: dict[str, Any]) -> None:
    """Write both splits and their facts under `folder`."""
    tensors: dict[str, np.ndarray] = {}
    for split in SPLITS:
        tensors[f"{split}.input_ids"] = rows[split].input_ids
        tensors[f"{split}.trained"] = rows[split].trained.astype(np.uint8)
        tensors[f"{split}.lengths"] = rows[split].lengths
    facts_json = json.dumps(facts, sort_keys=True)
    metadata = {"key": key, "facts": facts_json, "sha256": _content_sha256(tensors, key, facts_json)}
    write_cache(cache_path(folder, key), save(tensors, metadata))


def load_rows(folder: Path, key: str) -> tuple[dict[str, TokenRows], dict[str, Any]] | None:
    """Return (rows by split, facts), or None when there is no cache of this key or it is damaged (which is logged)."""
    path = cache_path(folder, key)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        facts_json = metadata.get("facts", "")
        if metadata.get("key") != key or metadata.get("sha256") != _content_sha256(tensors, key, facts_json):
            raise ValueError("its content does not match its hash")
    except (SafetensorError, OSError, ValueError) as error:
        log.warning("The token cache %s is damaged (%s); tokenising again.", path, error)
        return None
    rows = {
        split: TokenRows(
            tensors[f"{split}.input_ids"], tensors[f"{split}.trained"].astype(bool), tensors[f"{split}.lengths"]
        )
        for split in SPLITS
    }
    return rows, parse_json(facts_json)


def _content_sha256(tensors: Mapping[str, np.ndarray], key: str, facts_json: str) -> str:
    sha = hashlib.sha256(f"{key}\n{facts_json}\n".encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        sha.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        sha.update(tensor.data)
    return sha.hexdigest()
