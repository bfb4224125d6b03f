"""`bitnet-train train --dry-run`: what training would do, before anything is spent on it.

First all that needs no weights, seconds after the start however large the model is: text, rows, padding, the first row
with its mask, the plan of layers, what trains, steps and memory, from an outline of the model (`model/outline`). Then
the weights are opened, and a step is timed on the first batch (`train/budget`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bitnet_train.config import Config
from bitnet_train.facts import plain
from bitnet_train.importers.load import LoadedModel, load_pretrained
from bitnet_train.importers.outline import is_outline, outline, stand_in
from bitnet_train.model.bit_lora import trainable_report
from bitnet_train.run import assembly
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.exports import check_exports
from bitnet_train.run.length import settle, untimed
from bitnet_train.run.machine import settle_machine
from bitnet_train.run.memory import tell_memory
from bitnet_train.run.plane_plan import kept_planes
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.data.summary import print_data


@dataclass(frozen=True)
class _Sizes:
    """The trainable and all parameters, and what the run takes, where that is known so early."""

    trainable: int
    total: int
    memory: dict[str, Any] | None


def describe_training(config: Config, console: Console) -> dict[str, Any]:
    """Return trainable share, tokens, memory estimate and the first row with its mask; nothing is left on disk."""
    seen = _seen(config, console)
    console.print(f"Model: {seen.description}", markup=False)
    with tempfile.TemporaryDirectory() as folder:
        data = _data(config, seen, RunDirectory(Path(folder)))
        sample, facts = data.first_sample(), data.describe()
        print_data(console, facts)
        _print_row(console, sample)
        config, machine = settle_machine(config, None, console)
        sizes = _print_sizes(config, seen, data, console)
        original = _with_weights(config, seen, console)
        student = assembly.prepare_student(config, original)
        module = assembly.training_module(config, student, original, packed=data.is_packed)
        memory = sizes.memory or tell_memory(config, module, console)
        console.print("Timing a step ...")
        length = settle(config, module, data, None)
    estimate = length.estimate
    console.print(f"Peak learning rate {length.rate:.3g}.")
    console.print(f"Budget: {estimate.describe()}; {machine.why}.", soft_wrap=True)
    return {
        "trainable_parameters": sizes.trainable,
        "parameters": sizes.total,
        "steps": estimate.max_steps,
        "tokens": estimate.tokens,
        "epochs": estimate.epochs,
        "minutes": estimate.minutes,
        "memory_bytes": memory["most"],
        "memory": memory,
        "lr": length.rate,
        "precision": config.trainer.precision,
        "products": config.trainer.products,
        "data": plain(facts),
        "first_row": [{"text": text, "trained": trained} for text, trained in sample],
    }


def _seen(config: Config, console: Console) -> LoadedModel:
    """Return the outline of the model, or the model itself where its weights are needed from the start."""
    needs_weights = config.data.source == "self"
    seen = None if needs_weights else outline(config.model.source)
    if seen is not None:
        return seen
    reason = "`data.source=self`: it writes the text" if needs_weights else "only its weights say what it is"
    console.print(f"Opening the weights of {config.model.source} first ({reason}) ...", markup=False, soft_wrap=True)
    return load_pretrained(config.model.source)


def _data(config: Config, seen: LoadedModel, directory: RunDirectory) -> BitDataModule:
    """Return the data, read with a stand-in of an outline: whether documents mix in a row hangs on the architecture."""
    model = stand_in(seen.model) if is_outline(seen.model) else seen.model
    return assembly.data_module(config, replace(seen, model=model), directory)


def _print_sizes(config: Config, seen: LoadedModel, data: BitDataModule, console: Console) -> _Sizes:
    """Print the plan, what trains, the length of the run and what it takes; return what was counted."""
    check_exports(config, seen)
    console.print(assembly.plan_of(config, seen).render(), markup=False, soft_wrap=True)
    if config.weight.budget_mb is not None and kept_planes(config) is None:
        console.print(
            f"The planes of each layer are chosen when the run starts, by trials: `weight.budget_mb` is "
            f"{config.weight.budget_mb:g}.",
            soft_wrap=True,
        )
    student = assembly.prepare_student(config, seen)
    trainable, total = trainable_report(student.model)
    console.print(f"{trainable:,} of {total:,} parameters train ({trainable / total:.1%}).")
    if config.teacher.source is not None:  # of another teacher the weights would be opened
        return _Sizes(trainable, total, None)
    module = assembly.training_module(config, student, seen)
    estimate = untimed(config, module, data)
    if estimate is not None:
        console.print(f"Length: {estimate.describe()}.", soft_wrap=True)
    return _Sizes(trainable, total, tell_memory(config, module, console))


def _with_weights(config: Config, seen: LoadedModel, console: Console) -> LoadedModel:
    if not is_outline(seen.model):
        return seen
    told = f"All above needed no weights. Opening those of {config.model.source}, to time a step ..."
    console.print(told, markup=False, soft_wrap=True)
    return load_pretrained(config.model.source)


def _print_row(console: Console, sample: Sequence[tuple[str, bool]]) -> None:
    """Show what of a row is trained: in green, or between double brackets where there is no colour."""
    if console.color_system is None:
        console.print("First row, trained tokens in [[double brackets]]:", markup=False)
        marked = "".join(f"[[{text}]]" if trained else text for text, trained in sample)
        console.print(marked, markup=False, soft_wrap=True)
        return
    console.print("First row, trained tokens in [bold green]green[/]:")
    console.print(Text.assemble(*((text, "green" if trained else "dim") for text, trained in sample)))
