"""What the machine decides, settled once a run: `trainer.precision=auto` and `trainer.num_threads=null`.

Kept in `facts/machine.json`. A run that is continued takes both from there, whatever machine it is continued on: other
arithmetic would be another run, and sums over another number of threads are rounded otherwise.
"""

from __future__ import annotations

import torch
from rich.console import Console

from bitnet_train.config import Config, changed
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import MachineFacts
from bitnet_train.train.loop.machine import Arithmetic, arithmetic, thread_count
from bitnet_train.train.loop.settings import AUTO


def settle_machine(config: Config, directory: RunDirectory | None, console: Console) -> tuple[Config, Arithmetic]:
    """Return the configuration with precision and threads, and the arithmetic; warn of bf16 that is only imitated.

    Both are kept in `directory`. Threads that are asked for were set when the process was prepared; others are here.
    """
    kept = _kept(config, directory)
    trainer = config.trainer
    threads = trainer.num_threads or (kept.num_threads if kept is not None else thread_count())
    if trainer.num_threads is None:
        torch.set_num_threads(threads)
    asked = kept.arithmetic.precision if kept is not None and trainer.precision == AUTO else trainer.precision
    found = arithmetic(asked, trainer.accelerator)
    if (warning := found.warning()) is not None:
        console.print(f"note: {warning}", soft_wrap=True)
    is_kept = kept is not None and (kept.arithmetic.precision, kept.num_threads) == (found.precision, threads)
    if directory is not None and not is_kept:
        directory.keep(MachineFacts(found, found.describe(), threads))
    return changed(config, {"trainer.precision": found.precision, "trainer.num_threads": threads}), found


def _kept(config: Config, directory: RunDirectory | None) -> MachineFacts | None:
    if directory is None or config.trainer.resume == "never":
        return None
    return directory.kept(MachineFacts)
