"""One continuation: the tokens that are known, how many of them the model has read, and what is told of them.

`ids` are the prompt and what was drawn. A step reads some of those that its sequence has not read yet; when it has read
all, a token is drawn. So reading a prompt, adding a token, and going on after the memory of a text was taken for
another one (its `sequence` is None then) are the same thing.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bitnet_train.runtime.native.sampler import new_sampler
from bitnet_train.runtime.native.tokens import Tokens
from bitnet_train.runtime.native.written import Written
from bitnet_train.serve.worker.asked import Asked
from bitnet_train.serve.worker.engine import Engine
from bitnet_train.serve.worker.logprobs import likeliest, log_softmax

Event = dict[str, Any]
_NEVER = -9999.0  # as OpenAI's API says it: JSON knows no infinity


class Text:
    """A text that is being written, or waits for it; `events` is what is to be told of it."""

    def __init__(self, key: str, asked: Asked, engine: Engine) -> None:
        self.key, self.asked = key, asked
        self.ids = list(asked.prompt)
        self.sequence: Any = None
        self.sampler = new_sampler(asked.sampling, asked.prompt)
        self.events: list[Event] = []
        self.finish: str | None = None
        self._tokens, self._stop_ids, self._context = engine.tokens, engine.facts.stop_ids, engine.facts.context
        self._pieces: list[str] = []  # not yet told; no method of its own is lent, for a cycle outlives its sequence
        self._written = Written(engine.tokens.decode, asked.stop, self._pieces.append)
        self._told = 0 if self.tells_prompt else len(asked.prompt)
        self._deadline = None if asked.seconds is None else time.monotonic() + asked.seconds
        self._is_begun = False

    @property
    def num_new(self) -> int:
        """Tokens that were drawn."""
        return len(self.ids) - len(self.asked.prompt)

    @property
    def unread(self) -> int:
        """Known tokens that the sequence has not read: one while a text is written."""
        return len(self.ids) - (self.sequence.length if self.sequence is not None else 0)

    @property
    def tells_prompt(self) -> bool:
        """Whether the logarithms of the prompt's tokens are asked for."""
        return self.asked.echo and self.asked.logprobs is not None

    @property
    def wants_all_logits(self) -> bool:
        """Whether logits after every token of the next step are needed: the prompt is being told."""
        return self._told < len(self.asked.prompt)

    @property
    def is_late(self) -> bool:
        """Whether its time is over."""
        return self._deadline is not None and time.monotonic() > self._deadline

    def begin(self, cached: int) -> None:
        """Tell that its prompt is being read, of which `cached` tokens were known."""
        if self._is_begun:
            return
        self._is_begun = True
        self.events.append(
            {"id": self.key, "is": "begun", "prompt_tokens": len(self.asked.prompt), "cached_tokens": cached}
        )
        if self.asked.echo:
            self._tell(self._tokens.decode(self.asked.prompt), [])
        if self.tells_prompt:
            self._tell("", [self._described(self.ids[0], None, None)])

    def read(self, logits: np.ndarray) -> None:
        """Take the logits [T, V] after the tokens that the sequence read last, all of them or the last row alone."""
        if self.wants_all_logits:
            self._tell_prompt(logits)

    def add(self, token_id: int, row: np.ndarray) -> None:
        """Take the next token, drawn from logits `row` [V]."""
        self.ids.append(token_id)
        ended = token_id in self._stop_ids and not self.asked.ignore_end
        if ended or self._written.push(token_id):
            self.finish = "stop"
        elif self.num_new >= self.asked.sampling.max_new_tokens or len(self.ids) >= self._context:
            self.finish = "length"
        if self.finish is not None:
            self._written.finish()
        told = [] if self.asked.logprobs is None else [self._described(token_id, log_softmax(row[None])[0], row)]
        if self._pieces or told:
            self._tell(self._piece(), told)

    def end(self, finish: str) -> None:
        """End it where it is."""
        self._written.finish()
        if self._pieces:
            self._tell(self._piece(), [])
        self.finish = finish

    def done(self) -> Event:
        """Return what is told at the end."""
        counts = {"prompt_tokens": len(self.asked.prompt), "new_tokens": self.num_new}
        return {"id": self.key, "is": "done", "finish": self.finish, **counts}

    def _piece(self) -> str:
        """Return what was written and is not yet told, once."""
        piece = "".join(self._pieces)
        self._pieces.clear()
        return piece

    def _tell(self, text: str, told: list[dict[str, Any]]) -> None:
        self.events.append({"id": self.key, "is": "piece", "text": text, **({"tokens": told} if told else {})})

    def _tell_prompt(self, logits: np.ndarray) -> None:
        """Tell the tokens of the prompt that the rows of `logits` speak of: each row is about the token after it."""
        first = self.sequence.length - len(logits) + 1
        about = [(at, row) for at, row in enumerate(logits, first) if self._told < at < len(self.asked.prompt)]
        logs = log_softmax(logits)
        told = [self._described(self.ids[at], logs[at - first], row) for at, row in about]
        self._told = self.sequence.length
        if told:
            self._tell("", told)

    def _described(self, token_id: int, logs: np.ndarray | None, row: np.ndarray | None) -> dict[str, Any]:
        top = [] if row is None or logs is None else likeliest(row, self.asked.logprobs or 0)
        shown = [] if logs is None else [[one, token_text(self._tokens, one), _finite(logs[one])] for one in top]
        logprob = None if logs is None else _finite(logs[token_id])
        return {"id": token_id, "text": token_text(self._tokens, token_id), "logprob": logprob, "top": shown}


def _finite(logprob: float) -> float:
    return float(logprob) if np.isfinite(logprob) else _NEVER


def token_text(tokens: Tokens, token_id: int) -> str:
    """Return the text of one token within a text: some tokenizers drop the space before the first token of all."""
    twice, once = tokens.shown([token_id, token_id]), tokens.shown([token_id])
    return twice[len(once) :] if twice.startswith(once) and len(twice) > len(once) else once
