"""The stage `reconstruct`: block-wise training alone, for a model that is larger than memory.

The model is opened where it lies and never loaded whole; the result is the run's merged model, to be exported. Training
end to end needs the whole model, its teacher and their moments in memory, so that is left to `train`, which can go on
from here with `model.source=RUN/merged`.
"""

from __future__ import annotations

import shutil
from typing import Any

from rich.console import Console

from bitnet_train.config import Config
from bitnet_train.config.compose import to_yaml
from bitnet_train.errors import ConfigError
from bitnet_train.importers.load import LoadedModel, load_mapped
from bitnet_train.kernels.torch_threads import on_torch_threads
from bitnet_train.model.plan import Plan
from bitnet_train.progress import open_console
from bitnet_train.run import assembly
from bitnet_train.run.exports import check_exports
from bitnet_train.run.facts import ReconstructFacts
from bitnet_train.run.machine import settle_machine
from bitnet_train.run.starting_point import block_run, fingerprint_of
from bitnet_train.train.blocks.streamed_blocks import reconstruct_streamed
from bitnet_train.train.data.summary import print_data
from bitnet_train.train.loop.freed_memory import keep_freed_memory

__all__ = ["reconstruct"]

_WHOLE = ("init.equalise", "weight.budget_mb", "weight.input_scale", "weight.sub_norm")
"""Settings that look at the whole model, or change it."""


@on_torch_threads()
def reconstruct(config: Config) -> ReconstructFacts | dict[str, Any]:
    """Write the run's merged model: every decoder block converted, trained alone and put away before the next."""
    assembly.prepare_process(config)
    _require_blocks_alone(config)
    keep_freed_memory()
    console = open_console(config.quiet)
    original = load_mapped(config.model.source)
    check_exports(config, original)
    plan = assembly.plan_of(config, original)
    console.print(f"Model: {original.description}")
    console.print(plan.render(), soft_wrap=True)
    console.print(_budget(config), soft_wrap=True)
    if config.dry_run:
        return {"layers": len(plan.converted), "weights": plan.num_weights}
    return _into_run(config, original, plan, console)


def _into_run(config: Config, original: LoadedModel, plan: Plan, console: Console) -> ReconstructFacts:
    config, directory = assembly.open_run(config)
    asked = to_yaml(config)
    config, machine = settle_machine(config, directory, console)
    console.print(f"Arithmetic: {machine.why}.", soft_wrap=True)
    data = assembly.data_module(config, original, directory)
    print_data(console, data.describe())
    run = block_run(config, data, directory.cache / f"blocks-{fingerprint_of(config)[:16]}")
    made = reconstruct_streamed(
        original.model,
        assembly.record_of(config, plan, assembly.tables_of(config, original, plan)),
        original.tokenizer,
        directory.merged,
        run,
        overwrite=True,
    )
    assembly.record_run(config, asked, directory, console.print)
    shutil.rmtree(run.scratch, ignore_errors=True)
    console.print(f"Merged model in {directory.merged}. Pack it: `bitnet-train export {directory.root}`.")
    return directory.keep(ReconstructFacts(original.description, original.source, data.describe(), made))


def _require_blocks_alone(config: Config) -> None:
    for name in _WHOLE:
        section, key = name.split(".")
        if value := getattr(getattr(config, section), key):
            raise ConfigError(
                f"`{name}={str(value).lower()}` looks at the whole model, and `reconstruct` holds one block "
                "of it at a time. Drop it, or use `train` with `blockwise=on`."
            )


def _budget(config: Config) -> str:
    settings = config.blockwise
    row_tokens = config.data.context_tokens
    tokens = settings.steps * settings.batch_rows * row_tokens
    return (
        f"Budget: every block {settings.steps:,} steps of {settings.batch_rows} x {row_tokens:,} tokens, {tokens:,} in "
        f"all, from {settings.rows:,} rows of text."
    )
