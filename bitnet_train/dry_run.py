"""`bitnet-train train --dry-run`: what training would do, before anything is spent on it.

The memory estimate counts what is certain: float32 weights of student and teacher, gradients and two AdamW moments of
what trains, and the logits of one micro-batch of both models in float32 with their log-softmax. Activations inside the
blocks come on top; they depend on the attention kernel.
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

FLOAT32_BYTES = 4


def describe_training(config: Config, console: Console) -> dict[str, Any]:
    """Return trainable share, tokens, memory estimate and the first row with its mask; nothing is left on disk."""
    original = assembly.load_original(config)
    student = assembly.prepare_student(config, original)
    module = assembly.training_module(config, student, original)
    with tempfile.TemporaryDirectory() as folder:
        data = assembly.data_module(config, original, RunDirectory(Path(folder)))
        sample, facts = data.first_sample(), data.describe()
    trainable, total = trainable_report(student.model)
    trainer, rows = config.trainer, config.trainer.micro_rows * config.data.context_tokens
    vocabulary = original.model.config.get_text_config().vocab_size
    copies = 4 if module.teacher is not None else 2
    memory = FLOAT32_BYTES * (2 * total + 3 * trainable + copies * rows * vocabulary)
    console.print(student.plan.render(), highlight=False, soft_wrap=True)
    console.print(f"{trainable:,} of {total:,} parameters train ({trainable / total:.1%}).")
    tokens = trainer.max_steps * trainer.batch_rows * config.data.context_tokens
    console.print(
        f"{trainer.max_steps} steps read at most {tokens:,} tokens; the data holds {facts['train']['tokens']:,}."
    )
    console.print(f"Memory: {memory / 1e9:.2f} GB and the activations of {trainer.micro_rows} rows.")
    console.print("First row (trained tokens in [bold green]green[/]):")
    console.print(Text.assemble(*((text, "green" if trained else "dim") for text, trained in sample)))
    return {
        "trainable_parameters": trainable,
        "parameters": total,
        "tokens": tokens,
        "memory_bytes": memory,
        "data": facts,
        "first_row": [{"text": text, "trained": trained} for text, trained in sample],
    }
