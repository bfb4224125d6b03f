"""Requests are read beside the steps: a long text takes long to cut into tokens, and nobody else waits for it.

One thread hears what comes and knows at once what was cancelled; another turns requests into texts, in order, and
answers what needs no model. The steps take texts from `inbox`.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bitnet_train.errors import BitnetTrainError
from bitnet_train.serve.worker.asked import TooLong, prompt_ids, read_asked
from bitnet_train.serve.worker.engine import Engine
from bitnet_train.serve.worker.text import Text, token_text

Message = Mapping[str, Any]
_log = logging.getLogger(__name__)
REFUSED, BROKEN = 400, 500


class Desk:
    """Turns messages into texts; `inbox` gets a Text, ("cancel", key), or None when no more will come."""

    def __init__(self, engine: Engine, variables: Message, say: Callable[[dict[str, Any]], None]) -> None:
        self._engine, self._variables, self._say = engine, variables, say
        self._unread: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._unwritten: set[str] = set()  # those of which no text was made yet
        self._lock = threading.Lock()
        self.inbox: queue.SimpleQueue[Text | str | None] = queue.SimpleQueue()

    def open(self, heard: Iterable[Message]) -> None:
        """Begin to hear, in threads of its own."""
        threading.Thread(target=self._hear, args=(heard,), name="hear", daemon=True).start()
        threading.Thread(target=self._read_all, name="read", daemon=True).start()

    def _hear(self, heard: Iterable[Message]) -> None:
        for message in heard:
            if message.get("do") == "cancel":
                key = str(message.get("id"))
                with self._lock:
                    self._unwritten.discard(key)
                    self.inbox.put(key)
            else:
                self._unwritten.add(str(message.get("id")))
                self._unread.put(message)
        self._unread.put(None)
        self.inbox.put(None)

    def _read_all(self) -> None:
        while (message := self._unread.get()) is not None:
            key = str(message.get("id"))
            if key not in self._unwritten:
                continue
            try:
                self._read(key, message)
            except TooLong as error:
                self._refuse(key, REFUSED, "context_length_exceeded", str(error))
            except BitnetTrainError as error:
                self._refuse(key, REFUSED, "invalid_request_error", str(error))
            except Exception as error:  # of the tokenizer or the template, of any kind: it is this request's alone
                _log.error("A request could not be read", exc_info=error)
                self._refuse(key, BROKEN, "internal_error", "The request could not be read; the server's log says why.")

    def _read(self, key: str, message: Message) -> None:
        tokens = self._engine.tokens
        if message["do"] == "write":
            text = Text(key, read_asked(message, tokens, self._engine.facts, self._variables), self._engine)
            with self._lock:
                if key in self._unwritten:  # not cancelled meanwhile
                    self._unwritten.discard(key)
                    self.inbox.put(text)
        elif message["do"] == "tokenize":
            special = bool(message.get("special", True))
            variables = {**self._variables, **(message.get("variables") or {})}
            ids = prompt_ids(message["prompt"], tokens, self._engine.facts, variables, special=special)
            self._answer(key, token_ids=ids, texts=[token_text(tokens, one) for one in ids])
        else:
            self._answer(key, text=tokens.shown(self._known(message["token_ids"])))

    def _known(self, token_ids: list[int]) -> list[int]:
        from bitnet_train.runtime.native.context import Context

        facts = self._engine.facts
        return Context(facts.vocab, facts.context, facts.context).known(token_ids)

    def _answer(self, key: str, **answer: Any) -> None:
        self._unwritten.discard(key)
        self._say({"events": [{"id": key, "is": "answer", **answer}]})

    def _refuse(self, key: str, status: int, code: str, message: str) -> None:
        self._unwritten.discard(key)
        self._say({"events": [{"id": key, "is": "error", "status": status, "code": code, "message": message}]})
