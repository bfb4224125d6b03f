"""What training starts from where it is more than copied weights: made once, kept in the run directory, found again.

    equalise -> convert -> fit (`init`) -> reconstruct block by block (`blockwise`) -> start/, a converted model

A resumed or merged run loads `start/` and puts its checkpoint over it, so both levels hold: checkpoints for training,
finished blocks (in the cache) for what comes before. `facts/start.json` keeps the figures and a fingerprint of every
setting that decided them; under other settings the start is made anew, unless checkpoints came from the old one: those
go on from it, having been held against the settings already (`trained_settings`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from bitnet_train.config import Config
from bitnet_train.config.compose import to_dict
from bitnet_train.config.older import without_older
from bitnet_train.errors import ConfigError, TrainingError
from bitnet_train.importers.load import LoadedModel
from bitnet_train.model.converted import ConversionRecord, load_converted, save_converted
from bitnet_train.model.plan import Plan
from bitnet_train.model.start.equalise import equalise
from bitnet_train.model.start.initialise import initialise
from bitnet_train.model.start.settings import InitConfig
from bitnet_train.model.start.table_feedback import feed_back_head
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import StartFacts
from bitnet_train.run.machine import products_of
from bitnet_train.run.result import Spent
from bitnet_train.train.blocks.block_rows import BlockRun, in_pieces
from bitnet_train.train.blocks.blockwise import reconstruct
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.loop.checkpoint_manifest import list_checkpoints

Convert = Callable[[PreTrainedModel], ConversionRecord]
_DECIDING = ("model", "weight", "activation", "init", "blockwise", "schedule", "data")


def is_wanted(config: Config) -> bool:
    """Whether training starts from more than copied weights."""
    return config.init.needs_text or config.blockwise.enabled


def spent_before(config: Config, directory: RunDirectory | None) -> Spent:
    """Return what was spent before the first step of training end to end."""
    facts = directory.kept(StartFacts) if directory is not None and is_wanted(config) else None
    return Spent(facts.tokens, facts.seconds) if facts is not None else Spent()


def starting_point(
    config: Config,
    original: LoadedModel,
    plan: Plan,
    directory: RunDirectory,
    data: BitDataModule | None,
    convert: Convert,
) -> tuple[PreTrainedModel, ConversionRecord]:
    """Return the converted model that training starts from, loaded from `start/` or made with the rows of `data`.

    `plan` is what `convert`, which converts a float model in place, will do. Raises TrainingError when there is no
    start and no data to make it with, ConfigError when the source is 1-bit already, or checkpoints are there and the
    start that they were trained from is not.
    """
    if original.record is not None:
        raise ConfigError(
            f"`init` and `blockwise` start from float weights, and {original.source} is 1-bit already. "
            "Choose `init=plain blockwise=off`."
        )
    fingerprint = fingerprint_of(config)
    kept = directory.kept(StartFacts) if directory.start.is_dir() else None
    found = kept.fingerprint if kept is not None else None
    has_checkpoints = bool(list_checkpoints(directory.checkpoints))
    if found is not None and (found == fingerprint or data is None or has_checkpoints):
        model, _, record = load_converted(directory.start)
        return model, record
    if data is None:
        raise TrainingError(f"{directory.start} is not there. Run `bitnet-train train {directory.root}` first.")
    if has_checkpoints:
        raise ConfigError(
            f"the checkpoints of {directory.root} were trained from a start that is not there any more: "
            f"{directory.start}. Bring it back, or train anew in another `run.dir`."
        )
    return _make(config, original, plan, directory, data, convert, fingerprint)


def _make(
    config: Config,
    original: LoadedModel,
    plan: Plan,
    directory: RunDirectory,
    data: BitDataModule,
    convert: Convert,
    fingerprint: str,
) -> tuple[PreTrainedModel, ConversionRecord]:
    init, started = config.init, time.perf_counter()
    model = deepcopy(original.model)
    equalised = blocks = fitted = None
    if init.equalise:
        equalised = equalise(model, plan.schemes, *calibration_rows(data, init.calibration_rows))
    record = convert(model)
    head = _fit_head(model, original.model, init, data)
    scratch = directory.cache / f"start-{fingerprint[:16]}"
    if config.blockwise.enabled:
        blocks = reconstruct(model, original.model, block_run(config, data, scratch))
    else:
        fitted = initialise(model, init, *calibration_rows(data, init.calibration_rows))
    spent_s = time.perf_counter() - started + (blocks.earlier_seconds if blocks is not None else 0.0)
    save_converted(model, record, directory.start, original.tokenizer, replace=True)
    directory.keep(
        StartFacts(
            fingerprint=fingerprint,
            equalise=equalised,
            blockwise=blocks,
            init=fitted,
            head=head,
            seconds=spent_s,
            tokens=blocks.tokens if blocks is not None else 0,
        )
    )
    shutil.rmtree(scratch, ignore_errors=True)
    return model, record


def _fit_head(
    model: PreTrainedModel, original: PreTrainedModel, init: InitConfig, data: BitDataModule
) -> dict[str, Any] | None:
    """Fit a head in few bits, where latents get error feedback; return its errors."""
    if init.latents != "error_feedback":
        return None
    return feed_back_head(model, original, *calibration_rows(data, init.calibration_rows), init.damping)


def block_run(config: Config, data: BitDataModule, scratch: Path) -> BlockRun:
    """Return what a run's settings ask of block-wise training, on rows of its training text."""
    settings = config.blockwise
    token_ids, is_real = in_pieces(*calibration_rows(data, settings.rows), settings.row_tokens)
    return BlockRun(
        settings,
        config.schedule,
        token_ids,
        is_real,
        scratch,
        init=config.init,
        train_norms=config.adapter.train_norms,
        bf16=config.trainer.precision == "bf16",
        products=products_of(config),
        rounded=config.weight.tables != "exact",
        seed=config.trainer.seed,
    )


def calibration_rows(data: BitDataModule, num_rows: int) -> tuple[Tensor, Tensor]:
    """Return some rows of training text: ids int64 [R, L], right-padded, and which are real, bool [R, L]."""
    batch = data.some_training_rows(num_rows)
    return batch["input_ids"], batch["attention_mask"].bool()


def fingerprint_of(config: Config) -> str:
    """Return a digest of every setting that decides a start; what is kept in the cache is found by it."""
    settings = without_older(to_dict(config))
    decided: dict[str, Any] = {name: settings[name] for name in _DECIDING}
    decided |= {
        "norms": config.adapter.train_norms,
        "seed": config.trainer.seed,
        "arithmetic": config.trainer.precision,
    }
    if products_of(config) == "integer":  # of before there was a choice
        decided["products"] = "integer"
    return hashlib.sha256(json.dumps(decided, sort_keys=True, default=str).encode()).hexdigest()
