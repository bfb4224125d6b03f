"""From one `Config` to the objects of the lower floors; each function reads its own sections and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from rich.console import Console
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from bitnet_train.config import Config
from bitnet_train.config.compose import to_yaml
from bitnet_train.config.continued import told
from bitnet_train.errors import ConfigError, TrainingError
from bitnet_train.evaluate.windows import windows
from bitnet_train.importers.load import LoadedModel, load_pretrained
from bitnet_train.importers.outline import is_outline
from bitnet_train.model.bit_linear import set_training
from bitnet_train.model.bit_lora import attach
from bitnet_train.model.convert import Plan, convert, plan_conversion, plan_of_converted
from bitnet_train.model.converted import ConversionRecord
from bitnet_train.model.input_scale import add_input_scales
from bitnet_train.model.plan import describe_schemes
from bitnet_train.model.rounded_table import round_floats, table_names
from bitnet_train.model.sub_norm import add_sub_norms, calibrate
from bitnet_train.model.training_only import train_own_parameters
from bitnet_train.progress import be_quiet, warn
from bitnet_train.quant.narrow_table import GROUP_INPUTS
from bitnet_train.quant.surrogate import SURROGATES
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import ChangedAt, ContinuedFacts, TrainFacts
from bitnet_train.run.hold import placed
from bitnet_train.run.machine import products_of
from bitnet_train.run.plane_plan import overrides_of
from bitnet_train.run.starting_point import is_wanted, starting_point
from bitnet_train.run.teacher_answers import teacher_cache
from bitnet_train.run.trained_settings import check_continued, check_finished, record, step_reached
from bitnet_train.settings import part_of
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.data.packing import keeps_documents_apart, mixes_documents
from bitnet_train.train.loop.blocks_of_step import prepare_blocks
from bitnet_train.train.loop.checkpoint_manifest import find_latest
from bitnet_train.train.loop.devices import check_devices, check_shares
from bitnet_train.train.loop.held_out import find_best
from bitnet_train.train.loop.launch import cluster_environment
from bitnet_train.train.loop.lean_parts import keep_less
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.resume import load_student
from bitnet_train.train.losses.teacher import check_comparable, check_same_vocabulary


@dataclass(frozen=True)
class Student:
    """A converted model ready to train, what was done to it, and its tokenizer."""

    model: PreTrainedModel | PeftModel
    plan: Plan
    record: ConversionRecord
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Trained:
    """A student as training left it, the checkpoint it was read from, and the figures that chose it.

    `step`, `tokens` and `metrics` are those of the checkpoint, whatever the run did after it.
    """

    student: Student
    checkpoint: Path
    step: int
    tokens: int
    metrics: dict[str, float]
    best: dict[str, Any] | None = None


def open_run(config: Config) -> tuple[Config, RunDirectory]:
    """Return the configuration with its `run.dir`, as `placed` gives it, and that directory, made if it is new."""
    config, _ = placed(config)
    directory = RunDirectory(Path(str(config.run.dir)))
    directory.create(to_yaml(config))
    check_continued(config)
    return config, directory


def record_run(config: Config, asked: str, directory: RunDirectory, say: Callable[[str], object]) -> frozenset[str]:
    """Write what training uses from here on into the run's config.yaml, and say what differs from before, key by key.

    `asked` is the configuration as YAML, as it was asked for: what the run has settled since is no change. Returns the
    dotted keys that differ.
    """
    step, changed = step_reached(config), record(asked, directory.root)
    if not changed:
        return frozenset()
    say(f"note: {directory.config} was written under other settings. From step {step} on, and in it:\n{told(changed)}")
    earlier = directory.kept(ContinuedFacts) or ContinuedFacts()
    directory.keep(ContinuedFacts((*earlier.changes, ChangedAt(step, changed))))
    return frozenset(changed)


def finished_run(config: Config) -> RunDirectory:
    """Return the run directory that the command line named; it is there."""
    if config.run.dir is None:
        raise ConfigError("No run directory is given. Name one: `bitnet-train merge runs/RECIPE/TIME`.")
    check_finished(config, Path(config.run.dir))
    return RunDirectory(Path(config.run.dir))


def prepare_process(config: Config) -> None:
    """Apply `trainer.num_threads` and `--quiet`, and keep transformers' own bars and notes out of the way of ours."""
    be_quiet(config.quiet)
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    if config.trainer.num_threads is not None:
        torch.set_num_threads(config.trainer.num_threads)


def check_machine(config: Config) -> None:
    """Raise ConfigError for devices that this machine lacks, and for processes or rows that do not fit them."""
    trainer = config.trainer
    check_devices(trainer.accelerator, trainer.devices, trainer.strategy)
    cluster_environment(trainer.devices, trainer.num_nodes)
    check_shares(trainer.batch_rows, trainer.devices * trainer.num_nodes)


def plan_of(config: Config, original: LoadedModel) -> Plan:
    """Say what conversion would do; a model that is 1-bit already stays as it is."""
    if original.record is not None:
        return _with_tables(config, original, plan_of_converted(original.model))
    weight = config.weight.scheme
    plan = plan_conversion(
        original.model,
        config.model.selection,
        weight,
        overrides_of(config),
        shapes_alone=is_outline(original.model),
    )
    return _with_tables(config, original, plan)


def _with_tables(config: Config, original: LoadedModel, plan: Plan) -> Plan:
    """Add to a plan what happens to the rest."""
    tables = tables_of(config, original, plan)
    if tables is None:
        return plan
    kind = config.weight.tables
    groups = "" if kind in ("exact", "int8") else f" in groups of {GROUP_INPUTS}"
    named = f"{' and '.join(tables)} {kind} per row{groups}, " if tables else ""
    note = f"The rest is rounded, in training too: {named}all else bfloat16. `weight.tables=exact` keeps floats."
    return replace(plan, notes=(*plan.notes, note))


def convert_model(config: Config, model: PreTrainedModel, given: ConversionRecord | None) -> ConversionRecord:
    """Convert `model` in place and return the record of it.

    `given` is the record of a model that is 1-bit already: its weights keep the scheme of the file, and only how it
    trains (estimator, activations) comes from the configuration.
    """
    weight, activation = config.weight.scheme, config.activation
    surrogate, selection = part_of(SURROGATES[config.weight.estimator], config.weight), config.model.selection
    if given is not None:
        for key in ("input_scale", "sub_norm"):
            if getattr(config.weight, key):
                raise ConfigError(f"`weight.{key}=true` changes float weights, and these are 1-bit already. Drop it.")
        set_training(model, activation, surrogate)
        return _rounded(config, model, replace(given, activation=activation, surrogate=surrogate))
    plan = plan_conversion(model, selection, weight, overrides_of(config), shapes_alone=is_outline(model))
    convert(model, activation=activation, surrogate=surrogate, plan=plan)
    if config.weight.input_scale:
        add_input_scales(model)
    if config.weight.sub_norm:
        add_sub_norms(model, plan)
    return _rounded(config, model, record_of(config, plan, None))


def _rounded(config: Config, model: PreTrainedModel, record: ConversionRecord) -> ConversionRecord:
    """Round what is not 1-bit, where the configuration says so; what a source had rounded stays."""
    stored = config.weight.tables
    return record if stored == "exact" else replace(record, tables=round_floats(model, stored), stored_tables=stored)


def tables_of(config: Config, original: LoadedModel, plan: Plan) -> tuple[str, ...] | None:
    """Return the names of the tables that `round_floats` would make; None where nothing is rounded."""
    if config.weight.tables == "exact":
        return None
    return tuple(name for name in table_names(original.model) if name not in plan.converted)


def record_of(config: Config, plan: Plan, tables: tuple[str, ...] | None) -> ConversionRecord:
    """Return the record of a conversion that goes as planned; `tables` of those that are rounded."""
    stored = config.weight.tables
    return ConversionRecord.of_schemes(
        plan.schemes,
        config.weight.scheme,
        activation=config.activation,
        surrogate=part_of(SURROGATES[config.weight.estimator], config.weight),
        selection=config.model.selection,
        tables=tables,
        stored_tables="int8" if stored == "exact" else stored,
    )


def print_kept_scheme(config: Config, original: LoadedModel, console: Console) -> None:
    """Say that the file decides how weights are written, where the configuration says something else."""
    record = original.record
    if record is None or (record.weight == config.weight.scheme and not config.weight.overrides):
        return
    schemes = describe_schemes(record.schemes.values())
    console.print(
        f"note: The weights of {original.source} are 1-bit already, {schemes} with scales that can train; the scheme "
        "under `weight` is not used."
    )


def prepare_student(
    config: Config,
    original: LoadedModel,
    directory: RunDirectory | None = None,
    data: BitDataModule | None = None,
) -> Student:
    """Copy, convert and attach: the model as training starts it, the same at every call; `original` stays as it is.

    Where `init` or `blockwise` ask for more than copied weights, that start is kept in `directory` and made with the
    rows of `data`; without a directory the copied weights stand for it (sizes and names are the same).
    """
    plan = plan_of(config, original)
    if directory is not None and is_wanted(config):
        model, record = starting_point(
            config, original, plan, directory, data, lambda made: convert_model(config, made, None)
        )
    else:
        model = deepcopy(original.model)
        record = convert_model(config, model, original.record)
    if config.weight.sub_norm and data is not None:
        batch = data.some_training_rows(config.init.calibration_rows)
        calibrate(model, original.model, batch["input_ids"], batch["attention_mask"].bool())
    torch.manual_seed(config.trainer.seed)
    attached = attach(model, config.adapter)
    if config.adapter.kind != "lora_outside":
        train_own_parameters(attached)
    return Student(attached, plan, record, original.tokenizer)


def trained_student(
    config: Config, original: LoadedModel, directory: RunDirectory, say: Callable[[str], object] = warn
) -> Trained:
    """Return the student of a run as its newest whole checkpoint left it, or its best one with `trainer.keep_best`.

    `say` names the checkpoints that are passed over, and an earlier step than the run reached. Raises TrainingError
    when there is none.
    """
    found = find_best(directory.checkpoints, say) if config.trainer.keep_best else None
    checkpoint, best = found or (find_latest(directory.checkpoints, say=say), None)
    if checkpoint is None:
        raise TrainingError(
            f"{directory.checkpoints} has no checkpoint. Run `bitnet-train train {directory.root}` first."
        )
    student = prepare_student(config, original, directory)
    progress = load_student(student.model, checkpoint)
    if best is None:
        _say_if_earlier(progress["step"], directory, say)
    metrics = {**progress["metrics"], **progress["validation_metrics"]}
    return Trained(student, checkpoint, progress["step"], progress["tokens"], metrics, best)


def _say_if_earlier(step: int, directory: RunDirectory, say: Callable[[str], object]) -> None:
    facts = directory.kept(TrainFacts)
    if facts is not None and step < facts.result.steps:
        say(
            f"{directory.root} was trained to step {facts.result.steps}, and the newest checkpoint that can be used is "
            f"of step {step}: that is what is taken. `bitnet-train train {directory.root}` makes the steps again."
        )


def data_module(config: Config, original: LoadedModel, directory: RunDirectory) -> BitDataModule:
    """Return the data module; the full-precision model writes the corpus of `data.source=self`."""
    return BitDataModule(
        config.data,
        original.tokenizer,
        config.trainer.batch_rows,
        config.trainer.seed,
        directory.cache,
        original.model,
        config.trainer.short_row_tokens,
    )


def held_out_rows(config: Config, data: BitDataModule) -> dict[str, Tensor]:
    """Return int64 [R, L] rows to score: some of the held-out split, evenly spread over it."""
    most = max(1, config.evaluate.max_tokens // config.data.context_tokens)
    rows = data.validation_rows()
    count = len(rows["input_ids"])
    if count == 0:
        raise ConfigError("Nothing is held out. Set `data.validation_fraction` above 0.")
    chosen = torch.linspace(0, count - 1, min(most, count)).round().long()
    return {name: tensor[chosen] for name, tensor in rows.items()}


def score_windows(config: Config, tokenizer: PreTrainedTokenizerBase, text: str) -> dict[str, Tensor]:
    """Cut a text into int64 [R, L] rows to score, as `evaluate` says."""
    length = config.evaluate.window_tokens or config.data.context_tokens
    most = max(1, config.evaluate.max_tokens // length)
    return windows(text, tokenizer, length, max_windows=most, overlap=config.evaluate.window_overlap)


def teacher_model(config: Config, original: LoadedModel) -> PreTrainedModel:
    """Return what the student is compared with: `teacher.source`, or the model it was made from.

    Raises ConfigError for a teacher of another vocabulary or, where states are matched, another shape.
    """
    if config.teacher.source is None:
        return original.model
    teacher = load_pretrained(config.teacher.source)
    check_same_vocabulary(original.tokenizer, teacher.tokenizer, original.source, teacher.source)
    check_comparable(original.model, teacher.model, config.loss)
    return teacher.model


def training_module(
    config: Config,
    student: Student,
    original: LoadedModel,
    directory: RunDirectory | None = None,
    *,
    packed: bool = False,
) -> BitLightningModule:
    """Return the Lightning module, with a teacher when the loss compares with one.

    `directory` is where `teacher.cache` keeps the teacher's answers; without one nothing is kept. `packed` rows need a
    teacher that keeps their documents apart, as the original was seen to; another raises ConfigError.
    """
    loss, choice = config.loss, config.teacher
    teacher = teacher_model(config, original) if loss.needs_teacher else None
    if packed and teacher is not None and choice.source is not None and not keeps_documents_apart(teacher):
        raise ConfigError(mixes_documents(f"teacher.source={choice.source}", teacher))
    cache = None if teacher is None or directory is None else teacher_cache(config, teacher, directory)
    if not is_outline(original.model):
        if not config.trainer.compile:  # a compiler joins these operations itself
            keep_less(student.model)
        prepare_blocks(
            student.model,
            compiled=config.trainer.compile,
            checkpointed=config.trainer.checkpointing,
            products=products_of(config),
        )
    return BitLightningModule(
        student.model,
        teacher,
        max_steps=config.trainer.max_steps,
        micro_rows=config.trainer.micro_rows,
        loss=loss,
        optim=config.optimizer,
        schedule=config.schedule,
        seed=config.trainer.seed,
        teacher_cache=cache,
        rounded=student.record.is_rounded,
        products=products_of(config),
    )
