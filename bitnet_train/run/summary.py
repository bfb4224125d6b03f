"""The short table at the end of a run, made from the facts of its stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bitnet_train.bench.speed import DecodeSpeed
from bitnet_train.config import Config
from bitnet_train.evaluate.measured import ScoredText
from bitnet_train.model.converted import ConversionRecord
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.run.facts import ConvertFacts, ExportFacts, TrainFacts, ValidateFacts
from bitnet_train.run.folder_size import megabytes, warning
from bitnet_train.run.result import BothContinued, ModelSize, RunFacts, RunPerplexity, TextResult, TrainingCost
from bitnet_train.train.loop.budget import spoken
from bitnet_train.train.loop.fit import FitResult


@dataclass(frozen=True)
class StagesOfRun:
    """What the stages of a whole run said of themselves."""

    converted: ConvertFacts
    trained: TrainFacts
    exported: ExportFacts
    validated: ValidateFacts
    evaluated: EvaluateFacts


def summarise(
    config: Config, stages: StagesOfRun, continued: BothContinued, stage_seconds: dict[str, float]
) -> RunFacts:
    """Return what a result file keeps: quality, size, cost, speed, verdict, and where things are."""
    assert stages.evaluated.decode is not None, "`evaluate` times the packed model"
    passed = stages.validated.passed
    return RunFacts(
        recipe=config.recipe,
        source=config.model.source,
        weight=_weight(stages.converted.record),
        activation=config.activation.name,
        adapter=config.adapter.kind,
        perplexity=_perplexity(stages.converted, stages.evaluated),
        texts=texts(stages.evaluated),
        size=stages.exported.sizes,
        train=_cost_of(stages.trained),
        decode_tokens_per_s=stages.evaluated.decode.tokens_per_s,
        validation="passed" if passed else "FAILED",
        passed=passed,
        run_dir=config.run.dir,
        continued=continued,
        stage_seconds=stage_seconds,
    )


def _perplexity(converted: ConvertFacts, evaluated: EvaluateFacts) -> RunPerplexity:
    after, before = evaluated.held_out, converted.full_precision or evaluated.texts[0].compared.teacher
    assert after is not None, "a run holds text out"
    assert before is not None, "the original is measured by `convert` or by `evaluate`"
    return RunPerplexity(
        full_precision=before.perplexity,
        swapped=converted.swapped.perplexity,
        trained=after.perplexity,
        trained_nats=after.nats,
        ratio=after.perplexity / before.perplexity,
        tokens=after.tokens,
    )


def texts(evaluated: EvaluateFacts) -> tuple[TextResult, ...]:
    """Return, of the facts of `bitnet-train evaluate`, the figures of each text that a result file keeps."""
    return tuple(_text_result(text) for text in evaluated.texts)


def _text_result(text: ScoredText) -> TextResult:
    compared = text.compared
    return TextResult(
        name=text.name,
        held_out=text.held_out,
        window_tokens=text.window_tokens,
        tokens=compared.student.tokens,
        full_precision=compared.teacher.perplexity if compared.teacher else None,
        trained=compared.student.perplexity,
        ratio=compared.perplexity_ratio,
        kl=compared.kl,
        top1_agreement=compared.top1_agreement,
    )


def after_training(result: FitResult, run_dir: Path) -> str:
    """Return one line for people: what was trained, what it came to on held-out text, and where it lies."""
    metrics = result.metrics
    figures = {"perplexity": metrics.get("val_perplexity"), "KL": metrics.get("val_kl")}
    held_out = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if value is not None)
    length = f"{result.steps:,} steps, {result.tokens:,} tokens in {result.seconds / 60:.1f} minutes"
    measured = f" Held out: {held_out}." if held_out else ""
    return f"Trained {length}, loss {metrics['loss']:.4g}.{measured} Run directory: {run_dir}"


def render(compared: RunFacts) -> Group:
    """Return the closing tables for the terminal."""
    larger = warning(compared.size)
    notes = [Text(f"warning: {larger}", style="yellow")] if larger else []
    place = Text(f"Everything is in {compared.run_dir}")
    return Group(_figures(compared), *notes, *_continuations(compared.continued), place)


def _figures(compared: RunFacts) -> Table:
    scores, size, decode = compared.perplexity, compared.size, compared.continued.decode
    table = Table(title=f"{compared.recipe}: {compared.weight}, activations {compared.activation}")
    for column in ("", "full precision", "swapped", "trained, packed"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row(
        "held-out perplexity",
        f"{scores.full_precision:.2f}",
        f"{scores.swapped:,.1f}",
        f"{scores.trained:.2f} ({scores.ratio:.2f}x)",
    )
    for text in compared.texts:
        if not text.held_out:
            original = "" if text.full_precision is None else f"{text.full_precision:.2f}"
            ratio = "" if text.ratio is None else f" ({text.ratio:.2f}x)"
            table.add_row(f"perplexity of {text.name}", original, "", f"{text.trained:.2f}{ratio}")
    layers = f"{size.one_bit_bytes / 1e6:.2f} MB"
    table.add_row("1-bit layers alone", f"{size.layers.fp16_bytes / 1e6:.2f} MB", "", layers)
    table.add_row("whole folder", *_folder(size))
    table.add_row("greedy decoding", _speed(decode.full_precision), "", _speed(decode.packed))
    table.caption = _cost_and_verdict(compared)
    return table


def _cost_and_verdict(compared: RunFacts) -> str:
    whole = compared.stage_seconds
    took = f", everything {spoken(sum(whole.values()))}" if whole else ""
    return f"trained on {_cost(compared.train)}{took}; validation {compared.validation}"


def _folder(size: ModelSize) -> tuple[str, str, str]:
    """Return the original's size as it was given, and the folder's; older result files have no original."""
    return (megabytes(size.original_bytes) if size.original_bytes else "", "", megabytes(size.folder_bytes))


def _cost_of(trained: TrainFacts) -> TrainingCost:
    result, before = trained.result, trained.before
    return TrainingCost(
        steps=result.steps,
        tokens=result.tokens + before.tokens,
        seconds=result.seconds + before.seconds,
        before=before,
        tokens_per_s=result.tokens_per_s,
    )


def _cost(train: TrainingCost) -> str:
    cost = f"{train.tokens:,} tokens in {train.seconds:.0f} s"
    return f"{cost}, {train.before.tokens:,} of them on blocks" if train.before.tokens else cost


def _speed(decode: DecodeSpeed) -> str:
    return f"{decode.tokens_per_s:.0f} tok/s, {decode.computed_by}"


def _continuations(continued: BothContinued) -> list[Panel]:
    written = continued.continuations
    titled = {"full precision": written.full_precision, "1-bit, packed": written.packed}
    return [Panel(Text(continued.prompt + text), title=name, title_align="left") for name, text in titled.items()]


def _weight(record: ConversionRecord) -> str:
    """Say how weights are written, as the record of the conversion has it: a 1-bit source decides for itself."""
    scheme, mixed = record.weight, len(record.mixed)
    grain = scheme.granularity
    scale = f"one scale per {scheme.group_size} inputs" if grain == "group" else f"one scale per {grain}"
    return f"{scheme.title}, {scale}" + (f"; {mixed} layers otherwise" if mixed else "")
