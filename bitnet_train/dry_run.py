"""`bitnet-train train --dry-run`: what training would do, before anything is spent on it.

Steps, tokens, minutes and memory are those of `train/budget`, the time of a step measured on the first batch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bitnet_train import assembly
from bitnet_train.config import Config
from bitnet_train.model.bit_lora import trainable_report
from bitnet_train.run_directory import RunDirectory
from bitnet_train.run_length import settle
from bitnet_train.run_machine import settle_machine
from bitnet_train.train.data_summary import print_data


def describe_training(config: Config, console: Console) -> dict[str, Any]:
    """Return trainable share, tokens, memory estimate and the first row with its mask; nothing is left on disk."""
    arithmetic = settle_machine(config, None, console)
    original = assembly.load_original(config)
    student = assembly.prepare_student(config, original)
    module = assembly.training_module(config, student, original)
    with tempfile.TemporaryDirectory() as folder:
        data = assembly.data_module(config, original, RunDirectory(Path(folder)))
        sample, facts = data.first_sample(), data.describe()
        estimate, rate = settle(config, module, data, None)
    print_data(console, facts)
    trainable, total = trainable_report(student.model)
    console.print(student.plan.render(), highlight=False, soft_wrap=True)
    console.print(
        f"{trainable:,} of {total:,} parameters train ({trainable / total:.1%}), peak learning rate {rate:.3g}."
    )
    console.print(f"Budget: {estimate.describe()}; {arithmetic.describe()}.", highlight=False, soft_wrap=True)
    console.print(f"The data holds {facts['train']['tokens']:,} tokens.")
    console.print("First row (trained tokens in [bold green]green[/]):")
    console.print(Text.assemble(*((text, "green" if trained else "dim") for text, trained in sample)))
    return {
        "trainable_parameters": trainable,
        "parameters": total,
        "steps": estimate.max_steps,
        "tokens": estimate.tokens,
        "minutes": estimate.minutes,
        "memory_bytes": estimate.memory_bytes,
        "lr": rate,
        "precision": arithmetic.precision,
        "data": facts,
        "first_row": [{"text": text, "trained": trained} for text, trained in sample],
    }
