"""Models of strangers, streamed to a folder of their own under names that the server chooses or has on its list.

A GGUF is refused by its first four bytes, before anything of it is written; a file of safetensors by the length of its
header; another file by its name. What was aborted, or turns out longer than was said, is removed. Nothing here looks
into a model: that is for a process of its own (`workbench`).
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from starlette.requests import ClientDisconnect

from bitnet_train.disk import free_bytes
from bitnet_train.gguf.magic import MAGIC
from bitnet_train.serve.playground.refusal import Refused, not_found

ALLOWED = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "*.safetensors",
    "model.safetensors.index.json",
)
SPARE_BYTES = 256 << 20  # that stay free on the disk
MOST_SMALL_BYTES = 64 << 20  # of a file that is no weights
MOST_OPEN = 4  # folders that were begun and not finished
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_HEADER_BYTES, _MOST_HEADER_BYTES = 8, 100 << 20  # of safetensors: a length, and what the library itself takes
_DRAIN_BYTES = 8 << 20  # of a refused body that are read, so that the answer reaches a client that only sends
_LOOK_EVERY_BYTES = 64 << 20
_GGUF_NAME = "model.gguf"

Stream = AsyncIterator[bytes]
Check = Callable[[bytes], None]
"""Looks at the first bytes of a file. Raises Refused."""


@dataclass
class _Open:
    """A folder that is being uploaded: what was announced, and what has come whole."""

    folder: Path
    name: str
    sizes: dict[str, int]
    come: set[str] = field(default_factory=set)
    coming: set[str] = field(default_factory=set)


class Uploads:
    """The folder of all uploads."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        self._open: dict[str, _Open] = {}
        folder.mkdir(parents=True, exist_ok=True)

    async def gguf(self, stream: Stream, announced: int | None) -> tuple[Path, Path, int]:
        """Write a GGUF file; return its folder, itself, its bytes. Raises Refused, or ClientDisconnect."""
        self._require_room(announced or 0)
        folder = self._new_folder()
        try:
            size = await self._write(stream, folder / _GGUF_NAME, self._most_bytes, _require_gguf, len(MAGIC))
        except BaseException:
            self.remove(folder)
            raise
        return folder, folder / _GGUF_NAME, size

    def begin(self, name: str, sizes: dict[str, int]) -> str:
        """Announce a folder; return what it is called until it is done. Raises Refused."""
        for given, size in sizes.items():
            _require_name(given, size)
        if "config.json" not in sizes or not any(given.endswith(".safetensors") for given in sizes):
            raise Refused(400, "A folder of a model has a config.json and weights in *.safetensors.", "files")
        self._require_room(sum(sizes.values()))
        while len(self._open) >= MOST_OPEN:
            self.remove(self._open.pop(next(iter(self._open))).folder)
        number = secrets.token_hex(8)
        self._open[number] = _Open(self._new_folder(), name, sizes)
        return number

    async def put(self, number: str, name: str, stream: Stream) -> int:
        """Write one announced file; return its bytes. Raises Refused, or ClientDisconnect."""
        upload = self._get(number)
        if name not in upload.sizes:
            raise Refused(400, f"`{name[:80]}` was not announced for this upload.", "name")
        if name in upload.come | upload.coming:
            raise Refused(409, f"`{name[:80]}` has come already, or is coming.", "name", "taken")
        path, size = upload.folder / name, upload.sizes[name]
        upload.coming.add(name)
        is_weights = name.endswith(".safetensors")
        check = _require_safetensors(size) if is_weights else _take_anything
        try:
            written = await self._write(stream, path, size, check, _HEADER_BYTES + 1 if is_weights else 0)
            if written != size:
                raise Refused(400, f"`{name}` has {written:,} bytes, and {size:,} were announced.", "name")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            upload.coming.discard(name)
        upload.come.add(name)
        return written

    def finish(self, number: str) -> tuple[Path, str, int]:
        """Return the folder of an upload that is whole, its name and bytes. Raises Refused."""
        upload = self._get(number)
        missing = sorted(set(upload.sizes) - upload.come)
        if missing:
            raise Refused(409, f"{len(missing)} files have not come yet, such as `{missing[0]}`.", "files")
        del self._open[number]
        return upload.folder, upload.name, sum(upload.sizes.values())

    def remove(self, folder: Path) -> None:
        """Remove what was uploaded."""
        if folder.parent == self._folder:
            shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove all of it."""
        self._open.clear()
        for folder in self._folder.iterdir():
            self.remove(folder)

    def _get(self, number: str) -> _Open:
        if number not in self._open:
            raise not_found("upload", number)
        return self._open[number]

    def _new_folder(self) -> Path:
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir()
        return folder

    def _require_room(self, num_bytes: int) -> None:
        if num_bytes > self._most_bytes:
            raise too_large(self._most_bytes)
        free = free_bytes(self._folder)
        if num_bytes + SPARE_BYTES > free:
            raise Refused(507, f"{free:,} bytes are free on the disk, too few for this upload.", code="disk_full")

    async def _write(self, stream: Stream, path: Path, most: int, check: Check, num_checked: int) -> int:
        """Write a stream to a file once its first bytes have been looked at; return its bytes."""
        head, size, looked = b"", 0, 0
        with path.open("xb") as file:
            async for chunk in stream:
                size += len(chunk)
                if size > most:
                    raise too_large(most)
                if head is not None:
                    head += chunk
                    if len(head) < num_checked:
                        continue
                    await _or_drain(check, head, stream)
                    chunk, head = head, None
                file.write(chunk)
                if size - looked > _LOOK_EVERY_BYTES:
                    looked = size
                    self._require_room(0)
            if head:
                check(head)
                file.write(head)
        if head is not None and num_checked:
            check(head)
        return size


def too_large(most: int) -> Refused:
    """Return the refusal of what is larger than may be."""
    return Refused(413, f"The upload is above {most:,} bytes.", code="body_too_large")


def shown_name(name: str, otherwise: str) -> str:
    """Return what to call an upload: the last part of a name, without what no name has."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(letter for letter in last if letter.isprintable() and letter not in "<>\"'`&")[:80].strip(". ")
    return kept or otherwise


async def _or_drain(check: Check, head: bytes, stream: Stream) -> None:
    """Look at the first bytes; where they are refused, read on for a moment, or the answer would not be read."""
    try:
        check(head)
    except Refused:
        left = _DRAIN_BYTES
        with suppress(ClientDisconnect):
            async for chunk in stream:
                left -= len(chunk)
                if left < 0:
                    break
        raise


def _require_name(name: str, size: int) -> None:
    if not _NAME.fullmatch(name) or not any(fnmatchcase(name, pattern) for pattern in ALLOWED):
        raise Refused(400, f"`{name[:80]}` is no file of a model. Allowed: {', '.join(ALLOWED)}.", "files")
    if not name.endswith(".safetensors") and size > MOST_SMALL_BYTES:
        raise Refused(413, f"`{name}` is above {MOST_SMALL_BYTES:,} bytes.", "files", "body_too_large")


def _require_gguf(head: bytes) -> None:
    if not head.startswith(MAGIC):
        raise Refused(415, "This is no GGUF file: its first four bytes are not `GGUF`.", code="not_a_gguf")


def _require_safetensors(size: int) -> Check:
    def check(head: bytes) -> None:
        length = int.from_bytes(head[:_HEADER_BYTES], "little")
        is_sane = len(head) > _HEADER_BYTES and 2 <= length <= min(size - _HEADER_BYTES, _MOST_HEADER_BYTES)
        if not is_sane or head[_HEADER_BYTES : _HEADER_BYTES + 1] != b"{":
            raise Refused(415, "This is no file of safetensors: its header is none.", code="not_safetensors")

    return check


def _take_anything(head: bytes) -> None: ...
