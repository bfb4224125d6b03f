"""The main figures of a model as a section of its card, Markdown: what was measured, and no row of what was not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from huggingface_hub import EvalResult

from bitnet_train.evaluate.measured import ScoredText
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.report.figures import cell, number, percent, times
from bitnet_train.report.markdown import render_table

CURVE_FILE = "training.svg"


@dataclass(frozen=True)
class CardFigures:
    """What is known of a packed folder: its bytes and those of its original, bits a weight, what was measured.

    `verdict` is of `bitnet-train validate`, `has_curve` whether `CURVE_FILE` lies beside the card.
    """

    folder_bytes: int | None = None
    original_bytes: int | None = None
    bits_per_weight: float | None = None
    evaluated: EvaluateFacts | None = None
    verdict: str | None = None
    has_curve: bool = False


def render_card_figures(figures: CardFigures) -> str:
    """Return the section; nothing where nothing is known."""
    rows = tuple(_rows(figures))
    parts = ["## Figures", render_table(("", "original", "1-bit"), rows)] if rows else []
    if figures.evaluated is not None:
        parts.append(
            "Measured by `bitnet-train evaluate` on the packed folder: perplexity, KL and agreement on the same tokens "
            "for both."
        )
    if figures.has_curve:
        parts += ["## Training", f"![Cross-entropy and KL over the steps of training]({CURVE_FILE})"]
    return "".join(f"\n{part}\n" for part in parts)


def eval_results(evaluated: EvaluateFacts) -> list[EvalResult]:
    """Return what was measured as the hub reads it: perplexity of every text, accuracy of every file of choices."""
    texts = [_result(text.name, "perplexity", text.compared.student.perplexity) for text in evaluated.texts]
    return texts + [_result(choices.name, "accuracy", choices.student.acc) for choices in evaluated.choices]


def _result(name: str, metric: str, value: float) -> EvalResult:
    return EvalResult(
        task_type="text-generation", dataset_type=name, dataset_name=name, metric_type=metric, metric_value=value
    )


def _rows(figures: CardFigures) -> Iterator[tuple[str, ...]]:
    if figures.folder_bytes is not None:
        original = cell(figures.original_bytes, lambda size: f"{number(size / 1e6)} MB")
        yield "size", original, f"{number(figures.folder_bytes / 1e6)} MB"
    if figures.bits_per_weight is not None:
        yield "bits a weight of the 1-bit layers, with their scales", cell(None, str), number(figures.bits_per_weight)
    if figures.evaluated is not None:
        for text in figures.evaluated.texts:
            yield from _text_rows(text)
        yield from _speed_rows(figures.evaluated)
    if figures.verdict is not None:
        yield "verdict of bitnet-train validate", cell(None, str), figures.verdict


def _text_rows(text: ScoredText) -> Iterator[tuple[str, ...]]:
    compared = text.compared
    before = cell(compared.teacher, lambda score: number(score.perplexity))
    ratio = "" if compared.perplexity_ratio is None else f" ({times(compared.perplexity_ratio)})"
    yield f"perplexity, {text.name}", before, f"{number(compared.student.perplexity)}{ratio}"
    if compared.kl is not None:
        yield f"KL to the original in nats, {text.name}", cell(None, str), number(compared.kl, 3)
    if compared.top1_agreement is not None:
        yield f"same likeliest token, {text.name}", cell(None, str), percent(compared.top1_agreement)


def _speed_rows(evaluated: EvaluateFacts) -> Iterator[tuple[str, ...]]:
    if evaluated.decode is None:
        return
    original = cell(
        evaluated.decode_original, lambda speed: f"{number(speed.tokens_per_s, 1)} ({speed.describe_engine()})"
    )
    speed = evaluated.decode
    yield "greedy tokens a second", original, f"{number(speed.tokens_per_s, 1)} ({speed.describe_engine()})"
