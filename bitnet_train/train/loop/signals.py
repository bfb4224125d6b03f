"""SIGTERM and SIGINT end a run with a checkpoint and the exit code a shell expects: 143 and 130.

A first signal lets the step that is running finish; the saving callback then writes a checkpoint and raises
`Interrupted`. Before the first step there is nothing to save, so the signal ends the run at once, as a second SIGINT
always does. Lightning's own SIGTERM handler, which ends with exit code 0 and no checkpoint, is replaced when training
starts. Signals can only be caught in the main thread; elsewhere the watcher stays deaf.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from lightning.pytorch import Trainer

HANDLED = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """A signal ended the run; `code` is 128 + the signal's number, `checkpoint` what was saved, if anything was."""

    def __init__(self, signum: int, step: int, checkpoint: Path | None) -> None:
        super().__init__(128 + signum)
        self.signum, self.step, self.checkpoint = signum, step, checkpoint

    def __str__(self) -> str:
        """Say what happened and how to go on."""
        saved = (
            f"saved {self.checkpoint}; continue with `trainer.resume=auto`" if self.checkpoint else "nothing to save"
        )
        return f"Interrupted by {signal.Signals(self.signum).name} after step {self.step}: {saved}."


class SignalWatcher:
    """Context manager that remembers the first signal; `armed` from the first training step on."""

    def __init__(self) -> None:
        self.received = 0
        self.armed = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SignalWatcher:
        if threading.current_thread() is threading.main_thread():
            self._previous = {signum: signal.getsignal(signum) for signum in HANDLED}
            self._install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)

    def arm(self) -> None:
        """From here on, signals wait for the end of the step; takes over from handlers set meanwhile."""
        self.armed = True
        self._install()

    def agreed(self, trainer: Trainer) -> int:
        """Return the signal that any process of the run received, 0 for none: all processes stop at the same step."""
        if trainer.world_size == 1:
            return self.received
        signum = torch.tensor(self.received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(signum, reduce_op="max"))

    def _install(self) -> None:
        for signum in self._previous:
            signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received and signum == signal.SIGINT:
            os._exit(128 + signum)
        self.received = self.received or signum
        if not self.armed:
            raise Interrupted(signum, 0, None)
        name = signal.Signals(signum).name
        os.write(2, f"\n{name}: finishing this step, then saving. Ctrl-C again quits at once.\n".encode())
