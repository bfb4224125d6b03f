"""The table of contents of the program: one function per verb, in pipeline order.

Each stage reads what earlier stages left in the run directory, does one thing, writes its facts there as JSON and
returns them. `run` is all of them in a row, in one `Session`, so that what two of them need is loaded once. Text for
people goes through `console` and is silent with `--quiet`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bitnet_train import assembly, expectation, summary
from bitnet_train.config import Config
from bitnet_train.config.compose import to_dict, to_yaml
from bitnet_train.continuation import generate
from bitnet_train.delivery import check_exports, export
from bitnet_train.dry_run import describe_training
from bitnet_train.errors import ConfigError
from bitnet_train.evaluation import evaluate
from bitnet_train.model.bit_linear import on_kernels
from bitnet_train.model.bit_lora import trainable_report
from bitnet_train.model.converted import save_converted
from bitnet_train.model.input_scale import INPUT_SCALE_REFUSAL
from bitnet_train.model.load import LoadedModel
from bitnet_train.model.lora_layers import OUTSIDE_MERGE_REFUSAL
from bitnet_train.model.merge import merge as merge_model
from bitnet_train.model.sub_norm import SUB_NORM_REFUSAL
from bitnet_train.progress import open_console, track
from bitnet_train.run_directory import RunDirectory, is_model, packed_folder
from bitnet_train.run_length import settle
from bitnet_train.run_machine import settle_machine
from bitnet_train.runtime.bench_contenders import contenders, llama_contenders
from bitnet_train.runtime.bench_table import render_rows
from bitnet_train.runtime.evaluation.perplexity import perplexity
from bitnet_train.runtime.timing import Workload
from bitnet_train.runtime.validate import validate as validate_packed
from bitnet_train.runtime.validate_export import validate_export
from bitnet_train.session import Session
from bitnet_train.side_by_side import continue_both, timed
from bitnet_train.starting_point import spent_before
from bitnet_train.train.data_summary import print_data
from bitnet_train.train.fit import fit
from bitnet_train.train.freed_memory import keep_freed_memory
from bitnet_train.train.optim import reach
from bitnet_train.train.redaction import redact
from bitnet_train.trained_settings import CONTENT, check_continued, is_other_text, settings_of, step_reached

__all__ = ["bench", "convert", "evaluate", "export", "generate", "merge", "run", "train", "validate"]

Facts = dict[str, Any]


def convert(config: Config, session: Session | None = None, *, is_compared_later: bool = False) -> Facts:
    """Show which layers become 1-bit, and what swapping them without training costs.

    `is_compared_later`: `evaluate` will measure the original on the same rows, so it is not measured here.
    """
    assembly.prepare_process(config)
    directory, console, is_alone = assembly.open_run(config), _console(config), session is None
    session = session or Session(config)
    original = session.original()
    check_exports(config, original)
    console.print(f"Model: {original.description}")
    plan = assembly.plan_of(config, original)
    console.print(plan.render(), soft_wrap=True)
    _note_scheme(config, original, console)
    data = session.data(directory)
    rows = assembly.held_out_rows(config, original.tokenizer, data)
    before = None if is_compared_later else perplexity(original.model, rows)
    model = original.model if is_alone else deepcopy(original.model)
    record = assembly.convert_model(config, model, original.record)
    with on_kernels():
        swapped = perplexity(model, rows)
    known = "" if before is None else f" {before.perplexity:.2f};"
    console.print(f"Held-out perplexity{known} {swapped.perplexity:,.1f} with the layers just swapped.")
    return directory.write_facts(
        "convert",
        {
            "model": original.description,
            "source": original.source,
            "layers": len(plan.converted),
            "weights": plan.num_weights,
            "record": record.to_dict(),
            "data": data.describe(),
            "full_precision": None if before is None else asdict(before),
            "swapped": asdict(swapped),
        },
    )


def train(config: Config, session: Session | None = None) -> Facts:
    """Train through the quantiser up to `trainer.max_steps`, or go on where an interrupted run stopped."""
    assembly.prepare_process(config)
    assembly.check_machine(config)
    check_continued(config)
    if config.dry_run:
        return describe_training(config, _console(config))
    keep_freed_memory()
    directory, console, given = assembly.open_run(config), _console(config), to_yaml(config)
    config = deepcopy(config)  # what is settled here is no setting that later stages are asked for
    is_alone, session = session is None, session or Session(config)
    arithmetic = settle_machine(config, directory, console)
    original = session.original()
    check_exports(config, original)
    data = session.data(directory)
    print_data(console, data.describe())
    student = assembly.prepare_student(config, original, directory, data)
    _note_scheme(config, original, console)
    module = assembly.training_module(config, student, original, directory, packed=data.is_packed)
    estimate, rate = settle(config, module, data, directory)
    trainable, total = trainable_report(student.model)
    console.print(f"Training {trainable:,} of {total:,} parameters, peak learning rate {rate:.3g}.")
    console.print(f"Budget: {estimate.describe()}; {arithmetic.describe()}.", soft_wrap=True)
    if (slow := expectation.warning(config, estimate, arithmetic)) is not None:
        console.print(f"note: {slow}", soft_wrap=True)
    distance = reach(student.model, module.optim, config.trainer.max_steps)
    if distance is not None and (warning := distance.warning()):
        console.print(f"note: {warning}")
    content = data.describe()["content_sha256"]
    if is_other_text(config, content):
        console.print(
            "note: the text is not the one that the steps so far were trained on. The run goes on with it, from step "
            f"{step_reached(config)} on, and not as the uninterrupted run would have.",
            soft_wrap=True,
        )
    module.announced = assembly.record_run(config, given, directory, console.print)
    result = fit(
        module,
        data,
        assembly.fit_config(config),
        directory.root,
        assembly.trackers(config, directory),
        settings=settings_of(given) | {"trainer.precision": config.trainer.precision, CONTENT: content},
    )
    if result.is_stopped_early:
        console.print(
            f"Stopped after step {result.steps} of {estimate.max_steps}: no better held-out figure in "
            f"{config.trainer.patience} validations (`trainer.patience`), the best is that of step {result.best_step}.",
            soft_wrap=True,
        )
    console.print(summary.after_training(result, directory.root), markup=False, soft_wrap=True)
    if is_alone:
        console.print(f"Next: bitnet-train merge {directory.root}", markup=False, soft_wrap=True)
    return directory.write_facts(
        "train",
        {
            **asdict(result),
            "lr": rate,
            "arithmetic": arithmetic.describe(),
            "before": asdict(spent_before(config, directory)),
            "trainable_parameters": trainable,
            "parameters": total,
            "data": data.describe(),
            "config": redact(to_dict(config)),
        },
    )


def merge(config: Config, session: Session | None = None) -> Facts:
    """Fold what was trained into the latent weights, checked bit for bit, and save the model in float32."""
    assembly.prepare_process(config)
    directory, console = assembly.finished_run(config), _console(config)
    original = (session or Session(config)).original()
    trained = assembly.trained_student(config, original, directory, console.print)
    student = trained.student
    merged = merge_model(student.model).eval()
    shutil.rmtree(directory.merged, ignore_errors=True)
    save_converted(merged, student.record, directory.merged, student.tokenizer)
    chosen = f", the best by held-out perplexity, {trained.best['val_perplexity']:.2f}," if trained.best else ""
    console.print(f"Merged step {trained.step}{chosen} into {directory.merged}")
    facts = {"checkpoint": str(trained.checkpoint), "step": trained.step, "best": trained.best}
    return directory.write_facts("merge", facts)


def validate(config: Config) -> Facts:
    """Prove at six levels that the packed folder computes what was trained, and that every export holds its weights."""
    assembly.prepare_process(config)
    if is_model(config):
        return _validate_export(config, Path(config.path or ""), config.validate.against)
    console = _console(config)
    artefact, directory = packed_folder(config)
    against = config.validate.against
    if against is None and directory is not None and directory.merged.is_dir():
        against = str(directory.merged)
    report = validate_packed(
        artefact,
        against=against,
        num_prompts=config.validate.num_prompts,
        new_tokens=config.validate.new_tokens,
        num_tokens=config.validate.num_tokens,
        all_isas=config.validate.all_isas,
        native_tokens=config.validate.native_tokens,
        progress=lambda level: console.print(f"validating: {level}"),
    )
    console.print(report.render())
    facts = report.to_dict()
    exports = directory.written_exports() if directory is not None else []
    facts["exports"] = [_validate_export(config, folder, str(artefact)) for folder in exports]
    facts["passed"] = facts["passed"] and all(export["passed"] for export in facts["exports"])
    return _write(directory, "validate", facts)


def _validate_export(config: Config, path: Path, against: str | None) -> Facts:
    console = _console(config)
    report = validate_export(path, against=against, progress=lambda level: console.print(f"validating: {level}"))
    console.print(report.render())
    return report.to_dict()


def bench(config: Config) -> Facts:
    """Measure the packed model in tokens per second, beside a float model and llama.cpp where they are named."""
    assembly.prepare_process(config)
    artefact, directory = packed_folder(config)
    settings = config.bench
    workload = Workload(settings.prompt_tokens, settings.new_tokens, settings.repeats, tuple(settings.contexts))
    ours = contenders(artefact, workload, settings.threads, settings.isas, settings.against)
    measures = [*ours, *llama_contenders(settings.gguf, settings.llama_bench, workload, settings.threads)]
    rows = [measure() for measure in track(measures, "Measuring", len(measures))]
    title = f"{workload.prompt_tokens} tokens prefilled, {workload.new_tokens} decoded, medians of {workload.repeats}"
    _console(config).print(render_rows(rows, title))
    return _write(directory, "bench", {**asdict(workload), "rows": [row.to_dict() for row in rows]})


def run(config: Config) -> Facts:
    """Go the whole way: convert, train, merge, export, validate, evaluate, and compare with the original."""
    if config.adapter.kind == "lora_outside":
        raise ConfigError(f"`adapter.kind=lora_outside` cannot go the whole way. {OUTSIDE_MERGE_REFUSAL}")
    for key, refusal in (("input_scale", INPUT_SCALE_REFUSAL), ("sub_norm", SUB_NORM_REFUSAL)):
        if getattr(config.weight, key):
            raise ConfigError(f"`weight.{key}=true` cannot go the whole way. {refusal}")
    assembly.check_machine(config)
    directory, console = assembly.open_run(config), _console(config)
    config.path, config.export.force = str(directory.root), True
    session, facts, seconds = Session(config), {}, {}
    stages: dict[str, Callable[[], Facts]] = {
        "convert": lambda: convert(config, session, is_compared_later=config.evaluate.against is None),
        "train": lambda: train(config, session),
        "merge": lambda: merge(config, session),
        "export": lambda: export(config),
        "validate": lambda: validate(config),
        "evaluate": lambda: evaluate(config, session),
    }
    for name, stage in stages.items():
        console.rule(name)
        facts[name], seconds[name] = timed(stage)
    both, seconds["result"] = timed(lambda: continue_both(config, directory, session, facts["evaluate"]))
    compared = directory.write_facts("run", {**summary.summarise(config, facts), **both, "stage_seconds": seconds})
    if not config.quiet:
        console.rule("result")
        console.print(summary.render(compared))
    return compared


def _note_scheme(config: Config, original: LoadedModel, console: Console) -> None:
    note = assembly.kept_scheme_note(config, original)
    if note is not None:
        console.print(f"note: {note}")


def _write(directory: RunDirectory | None, stage: str, facts: Facts) -> Facts:
    return directory.write_facts(stage, facts) if directory is not None else facts


def _console(config: Config) -> Console:
    return open_console(config.quiet)
