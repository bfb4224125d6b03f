"""A bar with loss, tokens/s and time left, in a notebook too; a plain line now and then where there is no terminal.

Everything goes to standard error, so that standard output stays free for results (`--json`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bitnet_train.progress import NotebookBar, open_console
from bitnet_train.train.loop.module import BitLightningModule

LINE_EVERY_S = 10.0


class ProgressShown(Callback):
    """Bar on a terminal and in a notebook, elsewhere a line every ~10 s and at the first and last step.

    `quiet` shows nothing.

    `epochs` gives the passes over the data that so many steps make, where that is known: time goes by what is read, as
    the last steps may read longer rows than the first.
    """

    def __init__(
        self, quiet: bool = False, console: Console | None = None, epochs: Callable[[int], float] | None = None
    ) -> None:
        self.quiet, self.epochs = quiet, epochs
        self.console = console or open_console(stderr=True)
        self._bar: Progress | None = None
        self._notebook_bar: NotebookBar | None = None
        self._task: Any = None
        self._last_line_s = float("-inf")
        self._start = (0.0, 0, 0)  # time, step, tokens

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show an empty bar."""
        assert isinstance(pl_module, BitLightningModule)
        self.quiet = self.quiet or not trainer.is_global_zero
        self._start = (time.monotonic(), pl_module.step, pl_module.tokens)
        if self.console.is_jupyter and not self.quiet:
            self._notebook_bar = NotebookBar(pl_module.max_steps)
        elif self.console.is_terminal and not self.quiet:
            columns = (TextColumn("training"), BarColumn(), TextColumn("{task.fields[figures]}"), TimeRemainingColumn())
            bar = Progress(*columns, console=self.console)
            self._task = bar.add_task("", total=self._read(pl_module.max_steps), figures="")
            bar.update(self._task, completed=self._read(pl_module.step))
            bar.start()
            self._bar = bar

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, or print a line when the last one is old."""
        assert isinstance(pl_module, BitLightningModule)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._read(pl_module.step), figures=self._figures(pl_module))
        elif self._notebook_bar is not None:
            is_last = pl_module.step == pl_module.max_steps
            self._notebook_bar.update(pl_module.step, self._line(pl_module), at_once=is_last)
        elif not self.quiet and self._line_is_due(pl_module):
            self._last_line_s = time.monotonic()
            self.console.print(self._line(pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar as it stands."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal in order."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._notebook_bar = None

    def _line(self, module: BitLightningModule) -> str:
        return f"{self._figures(module)}  {self._time_left(module)} left"

    def _line_is_due(self, module: BitLightningModule) -> bool:
        return module.step == module.max_steps or time.monotonic() - self._last_line_s >= LINE_EVERY_S

    def _figures(self, module: BitLightningModule) -> str:
        start_s, _, start_tokens = self._start
        speed = (module.tokens - start_tokens) / max(time.monotonic() - start_s, 1e-9)
        loss = module.metrics.get("loss", float("nan"))
        held_out = module.validation_metrics.get("val_perplexity")
        epoch = f"  epoch {self.epochs(module.step):.2f}" if self.epochs is not None else ""
        shown = f"step {module.step}/{module.max_steps}{epoch}  loss {loss:.4f}  {speed:,.0f} tokens/s"
        return shown if held_out is None else f"{shown}  held-out perplexity {held_out:.2f}"

    def _time_left(self, module: BitLightningModule) -> str:
        start_s, start_step, _ = self._start
        done, read = self._read(start_step), self._read(module.step)
        left = (self._read(module.max_steps) - read) / max(read - done, 1e-9)
        minutes, seconds = divmod(round((time.monotonic() - start_s) * left), 60)
        return f"{minutes}:{seconds:02d}"

    def _read(self, step: int) -> float:
        """What the first so many steps read, in the same unit for all of them."""
        return float(step) if self.epochs is None else self.epochs(step)
