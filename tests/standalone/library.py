"""The C library called from Python, for tests: bitnet.h in ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

OnToken = ctypes.CFUNCTYPE(c_int, c_int32, c_void_p)


class Info(ctypes.Structure):
    _fields_ = (
        ("vocab", c_size_t),
        ("context", c_size_t),
        ("num_end_tokens", c_size_t),
        ("weight_bytes", c_size_t),
        ("has_tokenizer", c_int),
    )


class Sampling(ctypes.Structure):
    _fields_ = (
        ("temperature", c_double),
        ("top_k", c_size_t),
        ("top_p", c_double),
        ("min_p", c_double),
        ("repetition_penalty", c_double),
        ("seed", c_uint64),
    )


def declared(path: Path) -> Any:
    """The library with the types of its functions."""
    c = ctypes.CDLL(str(path))
    ids = POINTER(c_int32)
    for name, result, *arguments in (
        ("version", c_char_p),
        ("last_error", c_char_p),
        ("load", c_void_p, c_char_p, c_int),
        ("free", None, c_void_p),
        ("model_info", Info, c_void_p),
        ("session_new", c_void_p, c_void_p, c_size_t, c_int),
        ("session_free", None, c_void_p),
        ("tokenize", c_int64, c_void_p, c_char_p, ids, c_size_t),
        ("piece", c_int64, c_void_p, c_int32, c_char_p, c_size_t),
        ("eval", c_int, c_void_p, ids, c_size_t, POINTER(c_float)),
        ("generate", c_int64, c_void_p, ids, c_size_t, c_size_t, POINTER(Sampling), OnToken, c_void_p),
    ):
        function = getattr(c, f"bitnet_{name}")
        function.restype, function.argtypes = result, arguments
    return c


class Library:
    """One loaded model of the library; methods raise RuntimeError with its last error."""

    def __init__(self, c: Any, folder: Path, threads: int = 1) -> None:
        self.c = c
        self.model = c.bitnet_load(str(folder).encode(), threads)
        self._require(self.model is not None)
        self.info = c.bitnet_model_info(self.model)

    def _require(self, holds: bool) -> None:
        if not holds:
            raise RuntimeError(self.c.bitnet_last_error().decode())

    def close(self) -> None:
        self.c.bitnet_free(self.model)

    @contextmanager
    def session(self, max_tokens: int = 0, cache: int = 0) -> Iterator[Any]:
        session = self.c.bitnet_session_new(self.model, max_tokens, cache)
        self._require(session is not None)
        yield session
        self.c.bitnet_session_free(session)

    def eval(self, session: Any, ids: Sequence[int]) -> np.ndarray:
        logits = np.full(self.info.vocab, np.nan, np.float32)
        out = logits.ctypes.data_as(POINTER(c_float))
        self._require(self.c.bitnet_eval(session, (c_int32 * len(ids))(*ids), len(ids), out) == 0)
        return logits

    def generate(
        self, ids: Sequence[int], max_new: int, sampling: Sampling | None = None, cache: int = 0, most: int = 1 << 30
    ) -> list[int]:
        found: list[int] = []

        def on_token(token: int, _: Any) -> int:
            found.append(token)
            return len(found) >= most

        how = None if sampling is None else ctypes.byref(sampling)
        with self.session(cache=cache) as session:
            array = (c_int32 * len(ids))(*ids)
            count = self.c.bitnet_generate(session, array, len(ids), max_new, how, OnToken(on_token), None)
        self._require(count >= 0)
        assert count == len(found)
        return found

    def tokenize(self, text: str) -> list[int]:
        count = self.c.bitnet_tokenize(self.model, text.encode(), None, 0)
        self._require(count >= 0)
        ids = (c_int32 * count)()
        assert self.c.bitnet_tokenize(self.model, text.encode(), ids, count) == count
        return list(ids)

    def piece(self, token: int) -> bytes:
        room = ctypes.create_string_buffer(512)
        count = self.c.bitnet_piece(self.model, token, room, len(room))
        self._require(count >= 0)
        return room.raw[:count]
