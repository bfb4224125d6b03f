"""What the teacher says of each training row, kept on disk, so that later epochs and runs need no teacher forward.

A row is known by the SHA-256 of its real tokens; the folder by that of the teacher's weights, of what is kept of its
answers (`kept_answers`) and of its arithmetic. So runs of the same data and teacher share a folder
(`teacher.cache_dir`), and none can read another's.

```
<cache_dir>/teacher-<32 hex digits>/shard-<pid>-<8 hex digits>.bin      appended to by one process, read by all
  record: 32 B row key | 4 B real tokens n | 4 B CRC-32 of the rest | n tokens of `token_bytes` each, little-endian
```

A killed run leaves at worst a torn last record of its own shard, which readers pass over; a damaged one fails its CRC
and is made again. For 10 million tokens of a vocabulary below 65,537 the 64 likeliest take 2.6 GB, states of 576
numbers 11.5 GB.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from bitnet_train.train.losses.kept_answers import Answer, Answers
from bitnet_train.train.losses.logit_loss import Target

CACHE_VERSION = 1
_HEADER = struct.Struct("<32sII")
Batch = dict[str, Tensor]

log = logging.getLogger(__name__)


class TeacherCache:
    """A teacher's answers by row. `hits` and `misses` count the rows asked for.

    folder: where shards of any teacher go. teacher: a Hugging Face causal LM, known by its tensors; `answers` runs it,
    for rows that are not stored.
    """

    def __init__(self, folder: Path, teacher: nn.Module, answers: Answers) -> None:
        self.teacher, self.answers = teacher, answers
        self._root, self._folder = folder, folder
        self._places: dict[bytes, tuple[Path, int, int]] = {}  # by row key: shard, offset of the payload, tokens
        self._shard: BinaryIO | None = None
        self._fingerprint: str | None = None
        self.hits = self.misses = 0

    @torch.no_grad()
    def target(self, piece: Batch) -> Target:
        """Return the teacher's answers to a micro-batch, by row of the flattened logits; padding is all zeros.

        piece: `input_ids` int64 [B,L] and, if rows differ in length, `attention_mask`; of packed rows `position_ids`
        and `real_tokens`.
        """
        self._open(piece["input_ids"].device)
        mask = piece.get("attention_mask", piece.get("real_tokens"))
        mask_BL = (torch.ones_like(piece["input_ids"]) if mask is None else mask).bool()
        keys = [_row_key(piece, row, mask_BL[row]) for row in range(len(mask_BL))]
        found = [self._read(key) for key in keys]
        missing = [row for row, answer in enumerate(found) if answer is None]
        self.hits, self.misses = self.hits + len(found) - len(missing), self.misses + len(missing)
        for row, answer in zip(missing, self._ask(piece, missing, mask_BL), strict=True):
            found[row] = answer
            self._append(keys[row], answer)
        return self.answers.target([answer for answer in found if answer is not None], mask_BL)

    def close(self) -> None:
        """Flush to disk."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def _ask(self, piece: Batch, rows: list[int], mask_BL: Tensor) -> list[Answer]:
        """Run the teacher over `rows` alone."""
        if not rows:
            return []
        names = [name for name in ("input_ids", "attention_mask", "position_ids") if name in piece]
        return self.answers.ask({name: piece[name][rows] for name in names}, mask_BL[rows])

    def _open(self, device: torch.device) -> None:
        """Find the folder of this teacher and index its shards, once."""
        if self._fingerprint is not None:
            return
        arithmetic = str(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else "own"
        self._fingerprint = fingerprint(self.teacher, CACHE_VERSION, *self.answers.settings, arithmetic)
        self._folder = self._root / f"teacher-{self._fingerprint[:32]}"
        for shard in sorted(self._folder.glob("shard-*.bin")):
            self._index(shard)

    def _index(self, shard: Path) -> None:
        size = shard.stat().st_size
        with shard.open("rb") as file:
            while len(header := file.read(_HEADER.size)) == _HEADER.size:
                key, num_tokens, _ = _HEADER.unpack(header)
                end = file.tell() + self._payload_bytes(num_tokens)
                if end > size:
                    return
                self._places[key] = (shard, file.tell() - _HEADER.size, num_tokens)
                file.seek(end)

    def _payload_bytes(self, num_tokens: int) -> int:
        return num_tokens * self.answers.token_bytes

    def _read(self, key: bytes) -> Answer | None:
        place = self._places.get(key)
        if place is None:
            return None
        shard, offset, num_tokens = place
        try:
            with shard.open("rb") as file:
                file.seek(offset)
                header, payload = file.read(_HEADER.size), file.read(self._payload_bytes(num_tokens))
            if header != _header(key, num_tokens, payload) or len(payload) != self._payload_bytes(num_tokens):
                raise ValueError("its CRC-32 differs")
        except (OSError, ValueError) as error:
            log.warning("A row of the teacher cache %s is damaged (%s); asking the teacher again.", shard, error)
            del self._places[key]
            return None
        return self.answers.decode(payload)

    def _append(self, key: bytes, answer: Answer) -> None:
        payload = self.answers.encode(answer)
        try:
            if self._shard is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._shard = (self._folder / f"shard-{os.getpid()}-{secrets.token_hex(4)}.bin").open("xb")
            place = (Path(self._shard.name), self._shard.tell(), len(answer[0]))
            self._shard.write(_header(key, len(answer[0]), payload) + payload)
            self._shard.flush()
        except OSError as error:
            log.warning("The teacher cache %s cannot be written (%s); its rows are asked for again.", self._root, error)
            return
        self._places[key] = place


def fingerprint(teacher: nn.Module, *settings: Any) -> str:
    """Return the SHA-256, in hex, of a model's configuration, of every tensor in it, and of plain settings."""
    config: Any = teacher.config
    sha = hashlib.sha256(json.dumps([config.to_diff_dict(), *settings], sort_keys=True, default=str).encode())
    for name, tensor in teacher.state_dict().items():
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _row_key(piece: Batch, row: int, mask_L: Tensor) -> bytes:
    parts = [piece[name][row][mask_L] for name in ("input_ids", "position_ids") if name in piece]
    return hashlib.sha256(b"".join(part.cpu().numpy().astype("<i8").tobytes() for part in parts)).digest()


def _header(key: bytes, num_tokens: int, payload: bytes) -> bytes:
    return _HEADER.pack(key, num_tokens, zlib.crc32(payload))
