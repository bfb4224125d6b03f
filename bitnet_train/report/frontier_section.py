"""The folder among other models of its original: bytes on disk against perplexity ratio, text by text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bitnet_train.evaluate.frontier import Frontier
from bitnet_train.report.document import Block, Paragraph, Place, Places, Section, Table
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.report.figures import UNKNOWN, number, times

THIS = "this folder"
_SERIES = ("other models", THIS)


@dataclass(frozen=True)
class _Model:
    name: str
    side: str
    num_bytes: int
    ratios: Mapping[str, float]


def frontier_sections(facts: EvaluateFacts) -> Iterator[Section]:
    """Yield the section, where `evaluate.frontier` named a file."""
    frontier = facts.frontier
    if frontier is None or facts.folder_bytes is None:
        return
    own = {
        text.name: text.compared.perplexity_ratio
        for text in facts.texts
        if text.compared.perplexity_ratio is not None and frontier.holds(text)
    }
    models = sorted(
        [_Model(THIS, "", facts.folder_bytes, own), *_others(frontier)], key=lambda model: (model.num_bytes, model.name)
    )
    blocks: list[Block] = [Paragraph(_introduced(frontier, own)), _table(frontier, models)]
    blocks += [
        Places(
            f"{text}: perplexity of the original, by megabytes",
            _SERIES,
            tuple(
                Place(model.name, model.num_bytes / 1e6, model.ratios[text], int(model.name == THIS))
                for model in models
                if text in model.ratios
            ),
        )
        for text in frontier.texts
    ]
    yield Section("Size and quality", tuple(blocks))


def _others(frontier: Frontier) -> Iterator[_Model]:
    original = frontier.original
    yield _Model(original.name, "the original", original.file_bytes, dict.fromkeys(frontier.texts, 1.0))
    for name, point in frontier.points.items():
        yield _Model(name, point.side, point.file_bytes, {text: kept.ratio for text, kept in point.quality.items()})


def _introduced(frontier: Frontier, own: Mapping[str, float]) -> str:
    said = f"Models of {frontier.original.name} on the same tokens: whole files and folders, least is best in both."
    missing = [text for text in frontier.texts if text not in own]
    if not missing:
        return said
    windows = ", ".join(
        f"{text} ({frontier.texts[text].tokens:,} tokens in windows of {frontier.texts[text].window_tokens:,}, side by "
        "side)"
        for text in missing
    )
    return f"{said} This folder was not measured on {windows}, so its size alone is shown there."


def _table(frontier: Frontier, models: list[_Model]) -> Table:
    return Table(
        ("model", "by", "MB", *(f"ratio, {text}" for text in frontier.texts)),
        tuple(
            (
                model.name,
                model.side,
                number(model.num_bytes / 1e6, 1),
                *(times(model.ratios[text]) if text in model.ratios else UNKNOWN for text in frontier.texts),
            )
            for model in models
        ),
    )
