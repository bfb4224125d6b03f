"""`bitnet-train train --dry-run`: what training would do, before anything is spent on it.

Steps, tokens, minutes and memory are those of `train/budget`, the time of a step measured on the first batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bitnet_train import assembly
from bitnet_train.config import Config
from bitnet_train.delivery import check_exports
from bitnet_train.model.bit_lora import trainable_report
from bitnet_train.run_directory import RunDirectory
from bitnet_train.run_length import settle
from bitnet_train.run_machine import settle_machine
from bitnet_train.train.data_summary import print_data


def describe_training(config: Config, console: Console) -> dict[str, Any]:
    """Return trainable share, tokens, memory estimate and the first row with its mask; nothing is left on disk.

    What needs no weights is printed first; timing a step of a large model takes minutes.
    """
    arithmetic = settle_machine(config, None, console)
    console.print(f"Opening {config.model.source} ...", markup=False)
    original = assembly.load_original(config)
    check_exports(config, original)
    with tempfile.TemporaryDirectory() as folder:
        data = assembly.data_module(config, original, RunDirectory(Path(folder)))
        sample, facts = data.first_sample(), data.describe()
        print_data(console, facts)
        _print_row(console, sample)
        console.print(assembly.plan_of(config, original).render(), markup=False, soft_wrap=True)
        student = assembly.prepare_student(config, original)
        trainable, total = trainable_report(student.model)
        console.print(f"{trainable:,} of {total:,} parameters train ({trainable / total:.1%}).")
        console.print("Timing a step ...")
        module = assembly.training_module(config, student, original)
        estimate, rate = settle(config, module, data, None)
    console.print(f"Peak learning rate {rate:.3g}.")
    console.print(f"Budget: {estimate.describe()}; {arithmetic.describe()}.", soft_wrap=True)
    return {
        "trainable_parameters": trainable,
        "parameters": total,
        "steps": estimate.max_steps,
        "tokens": estimate.tokens,
        "epochs": estimate.epochs,
        "minutes": estimate.minutes,
        "memory_bytes": estimate.memory_bytes,
        "lr": rate,
        "precision": arithmetic.precision,
        "data": facts,
        "first_row": [{"text": text, "trained": trained} for text, trained in sample],
    }


def _print_row(console: Console, sample: Sequence[tuple[str, bool]]) -> None:
    """Show what of a row is trained: in green, or between double brackets where there is no colour."""
    if console.color_system is None:
        console.print("First row, trained tokens in [[double brackets]]:", markup=False)
        marked = "".join(f"[[{text}]]" if trained else text for text, trained in sample)
        console.print(marked, markup=False, soft_wrap=True)
        return
    console.print("First row, trained tokens in [bold green]green[/]:")
    console.print(Text.assemble(*((text, "green" if trained else "dim") for text, trained in sample)))
