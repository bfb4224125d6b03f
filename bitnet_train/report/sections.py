"""One section of the evaluation report for each file that was measured."""

from __future__ import annotations

from typing import Any

from bitnet_train.report.document import Bar, Bars, Block, Paragraph, Section, SideBySide, Table, Text
from bitnet_train.report.figures import number, percent, points, with_error

Facts = dict[str, Any]

SERIES = ("full precision", "1-bit")
_HEADER = ("", *SERIES)
_KINDS = {
    "summary": "long-context summary",
    "code": "code completion",
    "chat": "multi-turn chat",
    "plain": "continuation",
}


def text_section(text: Facts) -> Section:
    """Perplexity, agreement, confidence, and recall of frequent and rare tokens on one text."""
    student, teacher = text["student"], text["teacher"] or {}
    measures = (
        ("perplexity", "perplexity", number),
        ("next token right (top-1)", "accuracy", percent),
        ("mean confidence", "confidence", percent),
        ("confidence over accuracy", "overconfidence", points),
        ("calibration error (15 bins)", "calibration_error", percent),
        ("entropy, nats", "entropy", number),
    )
    rows = [(title, render(teacher.get(name)), render(student[name])) for title, name, render in measures]
    blocks: list[Block] = [Paragraph(_how_read(text)), Table(_HEADER, tuple(rows))]
    if teacher:
        blocks.insert(1, Paragraph(_agreement(text)))
    blocks.append(_recall(text["buckets"]))
    title = "Held-out text of the run" if text.get("held_out") else f"Text: {text['name']}"
    return Section(title, tuple(blocks))


def choices_section(result: Facts) -> Section:
    """Accuracy of one file of multiple choice, with standard errors and what is kept above chance."""
    student, teacher = result["student"], result["teacher"]
    shown = [
        (
            name,
            *(with_error(scores[name], scores[f"{name}_stderr"]) if scores else "–" for scores in (teacher, student)),
        )
        for name in ("acc", "acc_norm")
    ]
    kept = (
        f" Kept: {percent(result['retention'])} of accuracy, {percent(result['above_chance_retention'])} of what is "
        "above chance."
        if teacher
        else ""
    )
    groups = [Bar(name, "", (teacher[name] if teacher else None, student[name])) for name in ("acc", "acc_norm")]
    intro = (
        f"{result['questions']} questions; guessing gives {percent(result['chance'])}.{kept} acc_norm divides "
        "log-likelihoods by the bytes of the choice."
    )
    return Section(
        f"Multiple choice: {result['name']}",
        (
            Paragraph(intro),
            Table(_HEADER, tuple(shown)),
            Bars("Accuracy", SERIES, tuple(groups), ("chance", result["chance"])),
        ),
    )


def prompts_section(result: Facts) -> Section:
    """Figures of what was written on the prompts of one file, and the texts."""
    title = f"Prompts: {result['name']} ({_KINDS[result['kind']]})"
    if result.get("skipped"):
        return Section(title, (Paragraph(f"Skipped: {result['skipped']}."),))
    blocks: list[Block] = [Table(_HEADER, tuple(_written_rows(result)))]
    if result["agreement"] is not None:
        agreed = result["agreement"]
        text = (
            f"Agreement of the two: the first {agreed['common_prefix_tokens']:.1f} tokens are equal "
            f"({percent(agreed['common_prefix_share'])}), ROUGE-L {percent(agreed['rouge_l'])}, words in common (F1) "
            f"{percent(agreed['token_f1'])}. Greedy decoding; means over {len(result['turns'])} texts."
        )
        blocks.insert(0, Paragraph(text))
    blocks += [_turn(turn, result["kind"]) for turn in result["turns"]]
    return Section(title, tuple(blocks))


def _how_read(text: Facts) -> str:
    tokens, length = text["student"]["tokens"], text["window_tokens"]
    if text.get("held_out"):
        return f"{tokens:,} tokens in rows of {length}, from the split that training did not see."
    if text["window_overlap"]:
        return f"{tokens:,} tokens in windows of {length} that overlap by one: each token is predicted once."
    return (
        f"{tokens:,} tokens in windows of {length} side by side, an incomplete last one dropped, as WikiText-2 figures "
        "are published."
    )


def _agreement(text: Facts) -> str:
    return (
        f"The 1-bit model's perplexity is {number(text['perplexity_ratio'])} times that of the original. "
        f"KL(original || 1-bit) is {number(text['kl'], 3)} nats a token, both hold the same token likeliest for "
        f"{percent(text['top1_agreement'])}, and the 1-bit model's mean confidence differs by "
        f"{points(text['confidence_skew'])}."
    )


def _recall(buckets: list[Facts]) -> Bars:
    groups = [
        Bar(
            bucket["name"],
            f"{bucket['types']:,} types, {bucket['tokens']:,} tokens"
            + (f"; {percent(bucket['retention'], 0)} kept" if bucket["retention"] is not None else ""),
            (bucket["teacher"], bucket["student"]),
        )
        for bucket in buckets
    ]
    return Bars("Next token right, by how frequent the token is in this text", SERIES, tuple(groups))


def _written_rows(result: Facts) -> list[tuple[str, ...]]:
    teacher, student = result.get("teacher") or {}, result["student"]
    measures = (
        ("tokens", "tokens", lambda value: number(value, 1)),
        ("came to an end", "ended", percent),
        ("repeated 4-grams", "repetition", percent),
        ("code that parses", "parses", percent),
        ("ROUGE-L to the reference", "rouge_l_to_reference", percent),
        ("seconds a text", "seconds", number),
    )
    return [
        (title, render(teacher.get(name)), render(student.get(name)))
        for title, name, render in measures
        if name in student
    ]


def _turn(turn: Facts, kind: str) -> SideBySide:
    answers = turn["answers"]
    columns = [
        Text(title, answers[role]["text"], _figures(answers[role]["figures"]))
        for role, title in (("teacher", SERIES[0]), ("student", SERIES[1]))
        if role in answers
    ]
    return SideBySide(turn["name"], turn["prompt"], tuple(columns), turn["reference"], kind == "code")


def _figures(figures: Facts) -> str:
    parts = [f"{figures['tokens']} tokens", f"{percent(figures['repetition'], 0)} repeated"]
    if "parses" in figures:
        parts.append("parses" if figures["parses"] else "does not parse")
    return ", ".join(parts)
