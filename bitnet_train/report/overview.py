"""The facts of `bitnet-train evaluate` as a document: figures to see first, an overview, a section for each file."""

from __future__ import annotations

from bitnet_train.evaluate.measured import Choices, Prompts, ScoredText
from bitnet_train.report.document import Block, Document, Paragraph, Section, Table, Tile
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.report.figures import cell, number, percent, times
from bitnet_train.report.frontier_section import frontier_sections
from bitnet_train.report.sections import choices_section, prompts_section, text_section

STUDENT, TEACHER = "1-bit", "full precision"


def document(facts: EvaluateFacts, subject: str) -> Document:
    """Arrange the facts of one `evaluate`: figures to see first, an overview, then a section for each file.

    `subject` names what was evaluated.
    """
    against = facts.against
    compared = f"compared with {against.description}" if against else "not compared with another model"
    sections = [overview_section(facts), *frontier_sections(facts), *file_sections(facts)]
    return Document(
        f"Evaluation of {subject}", f"1-bit model, {compared}", quality_tiles(facts), tuple(sections), _footer(facts)
    )


def file_sections(facts: EvaluateFacts) -> tuple[Section, ...]:
    """Return a section for each file that was measured."""
    return (
        *(text_section(text) for text in facts.texts),
        *(choices_section(result) for result in facts.choices),
        *(prompts_section(result) for result in facts.prompts),
    )


def quality_tiles(facts: EvaluateFacts) -> tuple[Tile, ...]:
    """Return up to six figures, the first of each group first."""
    tiles = []
    for text in facts.texts[:2]:
        compared = text.compared
        if compared.teacher is None:
            tiles.append(Tile(text.name, number(compared.student.perplexity), "perplexity"))
        else:
            ratio = times(compared.perplexity_ratio)
            tiles.append(Tile(text.name, ratio, "perplexity of the original; 1 is equal"))
            tiles.append(Tile(text.name, percent(compared.top1_agreement), "same likeliest token"))
    for result in facts.choices[:1]:
        kept = result.retained.retention if result.retained else None
        value = percent(kept) if kept is not None else percent(result.student.acc)
        tiles.append(Tile(result.name, value, "accuracy kept" if kept is not None else "accuracy"))
    if facts.decode is not None:
        speed = facts.decode
        tiles.append(Tile("decoding", f"{speed.tokens_per_s:.0f} tok/s", f"greedy, packed, {speed.describe_engine()}"))
    return tuple(tiles)


def overview_section(facts: EvaluateFacts, title: str = "Overview") -> Section:
    """Return the figures of both models on everything that was measured, beside each other."""
    rows = [row for text in facts.texts for row in _text_rows(text)]
    rows += [row for result in facts.choices for row in _choice_rows(result)]
    rows += [row for result in facts.prompts for row in _prompt_rows(result)]
    blocks: list[Block] = []
    if facts.not_compared:
        blocks.append(Paragraph(f"Not compared with another model: {facts.not_compared}"))
    blocks.append(Table(("", TEACHER, STUDENT, "1-bit / full precision"), tuple(rows)))
    return Section(title, tuple(blocks))


def _text_rows(text: ScoredText) -> list[tuple[str, ...]]:
    student, teacher = text.compared.student, text.compared.teacher
    kept = _ratio(student.accuracy, teacher.accuracy) if teacher else None
    return [
        (
            f"{text.name}: perplexity",
            cell(teacher, lambda score: number(score.perplexity)),
            number(student.perplexity),
            times(text.compared.perplexity_ratio),
        ),
        (
            f"{text.name}: next token right",
            cell(teacher, lambda score: percent(score.accuracy)),
            percent(student.accuracy),
            percent(kept),
        ),
    ]


def _choice_rows(result: Choices) -> list[tuple[str, ...]]:
    student, teacher, kept = result.student, result.teacher, result.retained
    return [
        (
            f"{result.name}: acc",
            cell(teacher, lambda score: percent(score.acc)),
            percent(student.acc),
            percent(kept.retention if kept else None),
        ),
        (
            f"{result.name}: acc_norm",
            cell(teacher, lambda score: percent(score.acc_norm)),
            percent(student.acc_norm),
            percent(kept.retention_norm if kept else None),
        ),
    ]


def _prompt_rows(result: Prompts) -> list[tuple[str, ...]]:
    written = result.written
    if written is None:
        return []
    student, teacher = written.student, written.teacher
    shares = (
        ("repeated 4-grams", student.repetition, teacher and teacher.repetition, None),
        *_kept("code that parses", student.parses, teacher and teacher.parses),
        *_kept("ROUGE-L", student.rouge_l_to_reference, teacher and teacher.rouge_l_to_reference),
    )
    return [(f"{result.name}: {title}", percent(its), percent(own), percent(kept)) for title, own, its, kept in shares]


def _kept(
    title: str, own: float | None, its: float | None
) -> list[tuple[str, float | None, float | None, float | None]]:
    """Return a row of both shares and their ratio; none for a figure that these texts do not have."""
    return [] if own is None else [(title, own, its, _ratio(own, its))]


def _ratio(over: float, under: float | None) -> float | None:
    return over / under if under else None


def _footer(facts: EvaluateFacts) -> str:
    original = f" Original: {facts.against.source}." if facts.against else ""
    return f"Written by `bitnet-train evaluate`.{original} The figures are in facts/evaluate.json of the run."
