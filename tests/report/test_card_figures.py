"""The figures of a model card: those that were measured, and no others."""

from __future__ import annotations

from typing import Any

from bitnet_train.bench.speed import DecodeSpeed
from bitnet_train.evaluate.measured import Comparison, Score, ScoredText
from bitnet_train.report.card_figures import CardFigures, render_card_figures
from bitnet_train.report.evaluate_facts import EvaluateFacts


def score(perplexity: float) -> Score:
    return Score(1.0, perplexity, 1000, 0.5, 0.5, 0.0, 0.0, 1.0)


def evaluated(**changes: Any) -> EvaluateFacts:
    compared = Comparison(score(15.0), score(12.0), (), 1.25, 0.2214, 0.815)
    text = ScoredText("wiki | test", compared, 512, False)
    speed = DecodeSpeed(123.4, 8.1, 500.0, 32, 64, 3, 2, "native")
    return EvaluateFacts(**{"texts": (text,), "choices": (), "prompts": (), "decode": speed, **changes})


def rows(figures: CardFigures) -> list[list[str]]:
    lines = [line for line in render_card_figures(figures).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


def test_every_figure_that_is_known_is_a_row() -> None:
    figures = CardFigures(48_700_000, 98_400_000, 1.25, evaluated(), "passed, 6 levels", True)
    assert rows(figures) == [
        ["size", "98.40 MB", "48.70 MB"],
        ["bits a weight of the 1-bit layers, with their scales", "–", "1.25"],
        ["perplexity, wiki \\| test", "12.00", "15.00 (1.25x)"],
        ["KL to the original in nats, wiki \\| test", "–", "0.221"],
        ["same likeliest token, wiki \\| test", "–", "81.5 %"],
        ["greedy tokens a second", "–", "123.4 (native, 2 threads)"],
        ["verdict of bitnet-train validate", "–", "passed, 6 levels"],
    ]
    assert "](training.svg)" in render_card_figures(figures)


def test_what_was_not_measured_has_no_row() -> None:
    assert render_card_figures(CardFigures()) == ""
    assert rows(CardFigures(folder_bytes=1_000_000)) == [["size", "–", "1.00 MB"]]
    alone = Comparison(score(15.0), None, ())
    text = ScoredText("wiki", alone, 512, False)
    assert rows(CardFigures(evaluated=evaluated(texts=(text,), decode=None))) == [["perplexity, wiki", "–", "15.00"]]
    assert "training.svg" not in render_card_figures(CardFigures(folder_bytes=1))
