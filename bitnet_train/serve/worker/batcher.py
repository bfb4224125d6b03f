"""The steps: which texts are written, what each reads next, whose memory is taken when there is too little.

A step reads one token of every text that is being written and, of `step_tokens` what is left, the next part of prompts
that are new, first come first served. At most `most_texts` are written, the others wait in order. Keys and values stay
within `cache_bytes`: what is remembered of ended texts goes first, then the youngest text gives back its own and waits
again; it reads its tokens anew later and goes on as if nothing had happened.

    waiting  -- room -->  running  -- stop, length, time, cancelled -->  told, and its sequence remembered
       ^---- memory ----------'
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitnet_train.serve.worker.engine import Engine
from bitnet_train.serve.worker.remembered import Known, Remembered
from bitnet_train.serve.worker.text import Event, Text

_LEAST_READ = 16  # tokens of new prompts in a step, however many texts are written
UNAVAILABLE, BROKEN = 503, 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What all texts of a model may take together."""

    most_texts: int = 16
    cache_bytes: int = 1 << 30
    step_tokens: int = 64


class Batcher:
    """Texts of one model, for one thread."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine, self._limits = engine, limits
        self._waiting: deque[Text] = deque()
        self._running: list[Text] = []
        self._remembered = Remembered()
        self._told: list[Event] = []
        self._num_drawn = 0
        self._is_full = False  # a text gave its memory back: nobody joins until one leaves

    @property
    def is_busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self._running)

    def state(self) -> dict[str, int]:
        """Return what is going on, in numbers."""
        return {
            "running": len(self._running),
            "waiting": len(self._waiting),
            "cache_bytes": self._bytes(),
            "drawn_tokens": self._num_drawn,
        }

    def add(self, text: Text) -> None:
        """Let a text wait for its turn."""
        self._waiting.append(text)

    def cancel(self, key: str) -> None:
        """Forget a text; nothing more is told of it."""
        self._waiting = deque(text for text in self._waiting if text.key != key)
        for text in [text for text in self._running if text.key == key]:
            self._leave(text)

    def step(self) -> list[Event]:
        """Do one step of the model, and return what is to be told."""
        self._end_late()
        self._admit()
        parts = self._parts()
        if parts:
            self._take(parts)
        self._keep_within_bytes()
        return self._events()

    def _end_late(self) -> None:
        for text in [text for text in self._running if text.is_late]:
            text.end("length")
            self._finish(text)
        for text in [text for text in self._waiting if text.is_late]:
            self._waiting.remove(text)
            if text.num_new:
                text.end("length")
                self._told += [*text.events, text.done()]
            else:
                self._fail(text, UNAVAILABLE, "timeout", "The time of this request ended before its turn came.")

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._limits.most_texts:
            if self._running and (self._is_full or self._bytes() >= self._limits.cache_bytes):
                return
            text = self._next()
            self._waiting.remove(text)
            self._running.append(text)

    def _next(self) -> Text:
        """Return who waits longest of those whose request has the fewest texts running: a large one blocks nobody."""
        running = Counter(text.asked.request for text in self._running)
        return min(self._waiting, key=lambda text: running[text.asked.request])

    def _parts(self) -> list[tuple[Text, list[int]]]:
        """Return who reads what in this step."""
        written = [text for text in self._running if text.sequence is not None and text.unread == 1]
        room = max(self._limits.step_tokens - len(written), _LEAST_READ)
        parts = [(text, text.ids[-1:]) for text in written if not text.wants_all_logits]
        for text in list(self._running):
            if room == 0:
                break
            if text in written and not text.wants_all_logits:
                continue
            self._start(text)
            if text.finish is None:
                read = text.sequence.length
                parts.append((text, text.ids[read : read + room]))
                room -= len(parts[-1][1])
        return parts

    def _start(self, text: Text) -> None:
        """Give a text a sequence, if it has none."""
        if text.sequence is not None:
            return
        known = None
        if not text.tells_prompt:
            others = [
                Known(np.asarray(other.ids, np.int32), other.sequence)
                for other in self._running
                if other.sequence is not None
            ]
            known = self._remembered.beginning(text.ids, others)
        text.sequence = known if known is not None else self._engine.new_sequence()
        text.begin(text.sequence.length)
        if text.asked.sampling.max_new_tokens == 0 and not text.tells_prompt:
            text.end("length")
            self._finish(text)

    def _take(self, parts: list[tuple[Text, list[int]]]) -> None:
        """Let the model read the parts, and each text what comes of it; one that fails leaves the others alone."""
        all_logits = any(text.wants_all_logits for text, _ in parts)
        try:
            logits = self._engine.forward(
                [text.sequence for text, _ in parts], [ids for _, ids in parts], all_logits=all_logits
            )
        except Exception as error:  # whatever it is, it is one text's alone
            self._take_one_by_one(parts, error)
            return
        counts = [len(ids) if all_logits else 1 for _, ids in parts]
        ends = np.cumsum(counts)
        for (text, _), count, end in zip(parts, counts, ends, strict=True):
            text.read(logits[end - count : end])
        self._draw([text for text, _ in parts], logits[ends - 1])

    def _take_one_by_one(self, parts: list[tuple[Text, list[int]]], error: Exception) -> None:
        if isinstance(error, MemoryError) and self._remembered.drop_oldest():
            return  # the next step tries again
        if len(parts) > 1:
            for text, ids in parts:
                read = text.sequence.length  # which an engine may have begun anew
                self._take([(text, text.ids[read : read + len(ids)])])
            return
        text = parts[0][0]
        _log.error("A text was ended: %s", error, exc_info=error)
        self._running.remove(text)
        if isinstance(error, MemoryError):
            self._fail(text, UNAVAILABLE, "out_of_memory", "There is too little memory for this text.")
        else:
            self._fail(
                text, BROKEN, "internal_error", "The model could not read this text; the server's log says more."
            )

    def _draw(self, texts: list[Text], rows: np.ndarray) -> None:
        """Add a token to each text that has been read to its end."""
        ready = [at for at, text in enumerate(texts) if text.unread == 0]
        for at in [at for at in ready if texts[at].asked.sampling.max_new_tokens == 0]:
            texts[at].end("length")
        ready = [at for at in ready if texts[at].finish is None]
        if ready:
            chosen = rows if len(ready) == len(texts) else np.ascontiguousarray(rows[ready])
            drawn = self._engine.draw([texts[at].sampler for at in ready], np.ascontiguousarray(chosen))
            self._num_drawn += len(ready)
            for at, token_id in zip(ready, drawn, strict=True):
                texts[at].add(token_id, rows[at])
        for text in texts:
            if text.finish is not None:
                self._finish(text)

    def _keep_within_bytes(self) -> None:
        while self._bytes() > self._limits.cache_bytes:
            if self._remembered.drop_oldest():
                continue
            holders = [text for text in self._running if text.sequence is not None]
            if len(holders) > 1:
                self._put_back(holders[-1])
            elif holders:
                holders[0].end("length")
                self._told += [*holders[0].events, holders[0].done()]
                self._running.remove(holders[0])
            else:
                return

    def _put_back(self, text: Text) -> None:
        self._running.remove(text)
        text.sequence, self._is_full = None, True
        self._waiting.appendleft(text)

    def _finish(self, text: Text) -> None:
        self._told += [*text.events, text.done()]
        self._leave(text)

    def _leave(self, text: Text) -> None:
        self._running.remove(text)
        text.events, self._is_full = [], False
        if text.sequence is not None and text.sequence.length:
            self._remembered.keep(text.ids, text.sequence)

    def _fail(self, text: Text, status: int, code: str, message: str) -> None:
        error: dict[str, Any] = {"is": "error", "status": status, "code": code, "message": message}
        self._told += [*text.events, {"id": text.key, **error}]

    def _events(self) -> list[Event]:
        told, self._told = self._told, []
        for text in (*self._running, *self._waiting):
            told += text.events
            text.events = []
        return told

    def _bytes(self) -> int:
        held = sum(text.sequence.bytes for text in self._running if text.sequence is not None)
        return held + self._remembered.bytes
