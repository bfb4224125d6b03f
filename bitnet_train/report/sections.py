"""One section of the report for each file that was measured."""

from __future__ import annotations

from collections.abc import Callable

from bitnet_train.evaluate.measured import (
    Accuracy,
    Bucket,
    Choices,
    Prompts,
    Score,
    ScoredText,
    Turn,
    Writing,
    WrittenTexts,
)
from bitnet_train.report.document import Bar, Bars, Block, Paragraph, Section, SideBySide, Table, Text
from bitnet_train.report.figures import cell, number, percent, points, with_error

SERIES = ("full precision", "1-bit")
_HEADER = ("", *SERIES)
_KINDS = {
    "summary": "long-context summary",
    "code": "code completion",
    "chat": "multi-turn chat",
    "plain": "continuation",
}


_SCORES: dict[str, Callable[[Score], str]] = {
    "perplexity": lambda score: number(score.perplexity),
    "next token right (top-1)": lambda score: percent(score.accuracy),
    "mean confidence": lambda score: percent(score.confidence),
    "confidence over accuracy": lambda score: points(score.overconfidence),
    "calibration error (15 bins)": lambda score: percent(score.calibration_error),
    "entropy, nats": lambda score: number(score.entropy),
}
_ACCURACIES: dict[str, Callable[[Accuracy], str]] = {
    "acc": lambda score: with_error(score.acc, score.acc_stderr),
    "acc_norm": lambda score: with_error(score.acc_norm, score.acc_norm_stderr),
}


def text_section(text: ScoredText) -> Section:
    """Perplexity, agreement, confidence, and recall of frequent and rare tokens on one text."""
    student, teacher = text.compared.student, text.compared.teacher
    rows = tuple((title, cell(teacher, render), render(student)) for title, render in _SCORES.items())
    blocks: list[Block] = [Paragraph(_how_read(text)), Table(_HEADER, rows)]
    if teacher:
        blocks.insert(1, Paragraph(_agreement(text)))
    blocks.append(_recall(text.compared.buckets))
    title = "Held-out text of the run" if text.held_out else f"Text: {text.name}"
    return Section(title, tuple(blocks))


def choices_section(result: Choices) -> Section:
    """Accuracy of one file of multiple choice, with standard errors and what is kept above chance."""
    student, teacher, retained = result.student, result.teacher, result.retained
    shown = tuple((name, cell(teacher, render), render(student)) for name, render in _ACCURACIES.items())
    kept = (
        f" Kept: {percent(retained.retention)} of accuracy, {percent(retained.above_chance_retention)} of what is "
        "above chance."
        if retained
        else ""
    )
    groups = (
        Bar("acc", "", (teacher.acc if teacher else None, student.acc)),
        Bar("acc_norm", "", (teacher.acc_norm if teacher else None, student.acc_norm)),
    )
    intro = (
        f"{result.questions} questions; guessing gives {percent(result.chance)}.{kept} acc_norm divides "
        "log-likelihoods by the bytes of the choice."
    )
    return Section(
        f"Multiple choice: {result.name}",
        (Paragraph(intro), Table(_HEADER, shown), Bars("Accuracy", SERIES, groups, ("chance", result.chance))),
    )


def prompts_section(result: Prompts) -> Section:
    """Figures of what was written on the prompts of one file, and the texts."""
    title, written = f"Prompts: {result.name} ({_KINDS[result.kind]})", result.written
    if written is None:
        return Section(title, (Paragraph(f"Skipped: {result.skipped}."),))
    blocks: list[Block] = [Table(_HEADER, tuple(_written_rows(written)))]
    if written.agreement is not None:
        agreed = written.agreement
        text = (
            f"Agreement of the two: the first {agreed.common_prefix_tokens:.1f} tokens are equal "
            f"({percent(agreed.common_prefix_share)}), ROUGE-L {percent(agreed.rouge_l)}, words in common (F1) "
            f"{percent(agreed.token_f1)}. Greedy decoding; means over {len(written.turns)} texts."
        )
        blocks.insert(0, Paragraph(text))
    blocks += [_turn(turn, result.kind) for turn in written.turns]
    return Section(title, tuple(blocks))


def _how_read(text: ScoredText) -> str:
    tokens, length = text.compared.student.tokens, text.window_tokens
    if text.held_out:
        return f"{tokens:,} tokens in rows of {length}, from the split that training did not see."
    if text.window_overlap:
        return f"{tokens:,} tokens in windows of {length} that overlap by one: each token is predicted once."
    return (
        f"{tokens:,} tokens in windows of {length} side by side, an incomplete last one dropped, as WikiText-2 figures "
        "are published."
    )


def _agreement(text: ScoredText) -> str:
    compared = text.compared
    return (
        f"The 1-bit model's perplexity is {number(compared.perplexity_ratio)} times that of the original. "
        f"KL(original || 1-bit) is {number(compared.kl, 3)} nats a token, both hold the same token likeliest for "
        f"{percent(compared.top1_agreement)}, and the 1-bit model's mean confidence differs by "
        f"{points(compared.confidence_skew)}."
    )


def _recall(buckets: tuple[Bucket, ...]) -> Bars:
    groups = [
        Bar(
            bucket.name,
            f"{bucket.types:,} types, {bucket.tokens:,} tokens"
            + (f"; {percent(bucket.retention, 0)} kept" if bucket.retention is not None else ""),
            (bucket.teacher, bucket.student),
        )
        for bucket in buckets
    ]
    return Bars("Next token right, by how frequent the token is in this text", SERIES, tuple(groups))


def _written_rows(written: WrittenTexts) -> list[tuple[str, ...]]:
    student, teacher = written.student, written.teacher
    rows: dict[str, Callable[[Writing], str]] = {
        "tokens": lambda made: number(made.tokens, 1),
        "came to an end": lambda made: percent(made.ended),
        "repeated 4-grams": lambda made: percent(made.repetition),
    }
    if student.parses is not None:
        rows["code that parses"] = lambda made: percent(made.parses)
    if student.rouge_l_to_reference is not None:
        rows["ROUGE-L to the reference"] = lambda made: percent(made.rouge_l_to_reference)
    rows["seconds a text"] = lambda made: number(made.seconds)
    return [(title, cell(teacher, render), render(student)) for title, render in rows.items()]


def _turn(turn: Turn, kind: str) -> SideBySide:
    columns = [
        Text(title, turn.answers[role].text, _figures(turn.answers[role].figures))
        for role, title in (("teacher", SERIES[0]), ("student", SERIES[1]))
        if role in turn.answers
    ]
    return SideBySide(turn.name, turn.prompt, tuple(columns), turn.reference, kind == "code")


def _figures(figures: Writing) -> str:
    parts = [f"{figures.tokens} tokens", f"{percent(figures.repetition, 0)} repeated"]
    if figures.parses is not None:
        parts.append("parses" if figures.parses else "does not parse")
    return ", ".join(parts)
