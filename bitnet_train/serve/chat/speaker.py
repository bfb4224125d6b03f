"""A model that answers a conversation: what every engine gives, and how an answer is watched while it comes."""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from bitnet_train.runtime.generation import GenerationOptions, Sampling
from bitnet_train.runtime.native.written import Written
from bitnet_train.serve.chat.conversation import Message

Ending = Literal["end", "stop", "length", "interrupted"]
Show = Callable[[str], object]


@dataclass(frozen=True)
class Answer:
    """What was written, its tokens beside those of the prompt, when the first came, and what ended it."""

    text: str
    num_tokens: int
    num_prompt_tokens: int
    seconds: float
    first_s: float | None
    ending: Ending

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second once the prompt was read; None for an answer too short to time."""
        if self.first_s is None or self.num_tokens < 2 or self.seconds <= self.first_s:
            return None
        return (self.num_tokens - 1) / (self.seconds - self.first_s)


class Watched(Written):
    """The text of an answer, growing: it knows when its first token came, and ends where that is asked for."""

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str], show: Show, is_stopped: Callable[[], bool]
    ) -> None:
        super().__init__(decode, stop, show)
        self._is_stopped, self._began = is_stopped, time.perf_counter()
        self.first_s: float | None = None
        self.is_interrupted = False

    def push(self, token_id: int) -> bool:
        """Take one more token; True where the text ends with it."""
        self.came()
        self.is_interrupted = self._is_stopped()
        return super().push(token_id) or self.is_interrupted

    def came(self) -> None:
        """Note that a token came."""
        if self.first_s is None:
            self.first_s = self.seconds

    @property
    def seconds(self) -> float:
        """Since the answer was asked for."""
        return time.perf_counter() - self._began


class Speaker(ABC):
    """Abstract: a loaded model and its tokenizer. `context` is the most tokens of a prompt and its answer."""

    name: str
    engine: str
    context: int

    @abstractmethod
    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a conversation that waits for an answer; DataError where there is no way to."""

    @abstractmethod
    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""

    @abstractmethod
    def go_on(self, prompt: list[int], sampling: Sampling, written: Watched) -> list[int]:
        """Continue a prompt, handing every token that ends nothing to `written`; return the ids."""

    def room(self, messages: Sequence[Message]) -> int:
        """Return how many tokens a prompt of these messages leaves in the context."""
        return self.context - len(self.prompt(messages))

    def answer(
        self, messages: Sequence[Message], options: GenerationOptions, show: Show, is_stopped: Callable[[], bool]
    ) -> Answer:
        """Answer a conversation that fits; `show` is called with each piece, and `is_stopped` asked at each token."""
        prompt = self.prompt(messages)
        written = Watched(self.decode, options.stop, show, is_stopped)
        made = self.go_on(prompt, options, written)
        text = written.finish()
        return Answer(text, len(made), len(prompt), written.seconds, written.first_s, _ending(written, made, options))


def _ending(written: Watched, made: list[int], sampling: Sampling) -> Ending:
    if written.is_interrupted:
        return "interrupted"
    if written.stopped:
        return "stop"
    return "length" if len(made) >= sampling.max_new_tokens else "end"


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a question: was Ctrl-C pressed in this block? The second time it is, KeyboardInterrupt is raised."""
    pressed = threading.Event()

    def press(number: int, frame: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
