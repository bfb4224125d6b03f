"""One job of a workbench: what it says while it works, and whether it is still wanted."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules.module import register_module_forward_pre_hook

from bitnet_train.serve.child import say

_PROGRESS_EVERY_S = 0.1


class Unwanted(Exception):
    """The job was cancelled."""


class Task:
    """See above."""

    def __init__(self, job: str, speak: Callable[[dict[str, Any]], None] = say) -> None:
        self.job, self._speak = job, speak
        self._unwanted = threading.Event()
        self._told = 0.0

    def cancel(self) -> None:
        """Have it end at its next `check`; from any thread."""
        self._unwanted.set()

    def check(self, *_: object) -> None:
        """Raise Unwanted where it was cancelled."""
        if self._unwanted.is_set():
            raise Unwanted

    def say(self, event: str, **data: Any) -> None:
        """Tell something of the job; numbers that JSON lacks become null."""
        self._speak({"job": self.job, "event": event, "data": finite(data)})

    def progress(self, done: int, total: int, label: str) -> None:
        """Tell how far it is; of many in a moment only some, and the last."""
        self.check()
        now = time.monotonic()
        if done in (0, total) or now - self._told > _PROGRESS_EVERY_S:
            self._told = now
            self.say("progress", done=done, total=total, label=label)

    def log(self, text: str) -> None:
        """Tell a line for people."""
        self.say("log", text=text)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Check before every module of a model that is called in the block."""
        hook = register_module_forward_pre_hook(self.check)
        try:
            yield
        finally:
            hook.remove()


def finite(value: Any) -> Any:
    """Return a value as JSON can hold it: a number that is not finite as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value
