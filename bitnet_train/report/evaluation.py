"""The facts of `bitnet-train evaluate` as a document, and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bitnet_train.report.document import Block, Document, Paragraph, Section, Table, Tile
from bitnet_train.report.figures import number, percent, times
from bitnet_train.report.sections import choices_section, prompts_section, text_section

Facts = dict[str, Any]

STUDENT, TEACHER = "1-bit", "full precision"


def document(facts: Facts) -> Document:
    """Arrange the facts of one evaluation: figures to see first, an overview, then a section for each file."""
    against = facts.get("against")
    compared = f"compared with {against['description']}" if against else "not compared with another model"
    sections = [
        _overview(facts),
        *(text_section(text) for text in facts["texts"]),
        *(choices_section(result) for result in facts["choices"]),
        *(prompts_section(result) for result in facts["prompts"]),
    ]
    return Document(
        f"Evaluation of {facts['subject']}", f"1-bit model, {compared}", _tiles(facts), tuple(sections), _footer(facts)
    )


def spoken(group: str, result: Facts) -> str:
    """Return one line on one file, for a terminal."""
    name = result["name"]
    if result.get("skipped"):
        return f"{name}: skipped, {result['skipped']}."
    return f"{name}: {_LINES[group](result)}"


def _text_line(text: Facts) -> str:
    student, teacher = text["student"], text["teacher"]
    line = f"perplexity {student['perplexity']:.3f} over {student['tokens']:,} tokens"
    if teacher is None:
        return line
    return (
        f"{line}, {times(text['perplexity_ratio'])} of {teacher['perplexity']:.3f}; KL {text['kl']:.3f} nats, "
        f"top-1 agreement {percent(text['top1_agreement'])}"
    )


def _choices_line(result: Facts) -> str:
    line = f"accuracy {percent(result['student']['acc'])} of {result['questions']} questions"
    if result["teacher"] is None:
        return f"{line}; chance {percent(result['chance'])}"
    return f"{line}, original {percent(result['teacher']['acc'])}, chance {percent(result['chance'])}"


def _prompts_line(result: Facts) -> str:
    line = f"{len(result['turns'])} texts, repetition {percent(result['student']['repetition'])}"
    if result["agreement"] is None:
        return line
    return (
        f"{line}, original {percent(result['teacher']['repetition'])}; ROUGE-L with it "
        f"{percent(result['agreement']['rouge_l'])}"
    )


_LINES: dict[str, Callable[[Facts], str]] = {"texts": _text_line, "choices": _choices_line, "prompts": _prompts_line}


def describe_speeds(facts: Facts) -> str:
    """Say how fast the packed model decodes, by what, and beside it how fast the one it is compared with does."""
    speed, original = facts["decode"], facts.get("decode_original")
    line = f"{speed['tokens_per_s']:,.1f} tokens/s, {engine(speed)}"
    reason = f", for the native runtime does not take it: {speed['not_native']}" if speed.get("not_native") else ""
    beside = f"; the original {original['tokens_per_s']:,.1f}, {engine(original)}" if original is not None else ""
    return line + reason + beside


def engine(speed: Facts) -> str:
    """Return what computed: `native`, or `torch` as in files of before there was a choice, and its threads."""
    threads = speed.get("num_threads")
    name = speed.get("engine", "torch")
    return name if threads is None else f"{name}, {threads} thread{'s' * (threads > 1)}"


def _tiles(facts: Facts) -> tuple[Tile, ...]:
    """Return up to six figures, the first of each group first."""
    tiles = []
    for text in facts["texts"][:2]:
        if text["teacher"] is None:
            tiles.append(Tile(text["name"], number(text["student"]["perplexity"]), "perplexity"))
        else:
            tiles.append(Tile(text["name"], times(text["perplexity_ratio"]), "perplexity of the original; 1 is equal"))
            tiles.append(Tile(text["name"], percent(text["top1_agreement"]), "same likeliest token"))
    for result in facts["choices"][:1]:
        kept = result.get("retention")
        value = percent(kept) if kept is not None else percent(result["student"]["acc"])
        tiles.append(Tile(result["name"], value, "accuracy kept" if kept is not None else "accuracy"))
    if "decode" in facts:
        speed = facts["decode"]
        tiles.append(Tile("decoding", f"{speed['tokens_per_s']:.0f} tok/s", f"greedy, packed, {engine(speed)}"))
    return tuple(tiles)


def _overview(facts: Facts) -> Section:
    rows = [row for text in facts["texts"] for row in _text_rows(text)]
    rows += [row for result in facts["choices"] for row in _choice_rows(result)]
    rows += [row for result in facts["prompts"] if not result.get("skipped") for row in _prompt_rows(result)]
    blocks: list[Block] = []
    if facts.get("not_compared"):
        blocks.append(Paragraph(f"Not compared with another model: {facts['not_compared']}"))
    blocks.append(Table(("", TEACHER, STUDENT, "1-bit / full precision"), tuple(rows)))
    return Section("Overview", tuple(blocks))


def _text_rows(text: Facts) -> list[tuple[str, ...]]:
    student, teacher = text["student"], text["teacher"] or {}
    kept = _ratio(student["accuracy"], teacher.get("accuracy"))
    name = text["name"]
    return [
        (
            f"{name}: perplexity",
            number(teacher.get("perplexity")),
            number(student["perplexity"]),
            times(text["perplexity_ratio"]),
        ),
        (f"{name}: next token right", percent(teacher.get("accuracy")), percent(student["accuracy"]), percent(kept)),
    ]


def _choice_rows(result: Facts) -> list[tuple[str, ...]]:
    teacher = result["teacher"] or {}
    return [
        (
            f"{result['name']}: {name}",
            percent(teacher.get(name)),
            percent(result["student"][name]),
            percent(result.get(kept)),
        )
        for name, kept in (("acc", "retention"), ("acc_norm", "retention_norm"))
    ]


def _prompt_rows(result: Facts) -> list[tuple[str, ...]]:
    teacher, student = result.get("teacher") or {}, result["student"]
    names = {"repetition": "repeated 4-grams", "parses": "code that parses", "rouge_l_to_reference": "ROUGE-L"}
    return [
        (f"{result['name']}: {title}", percent(teacher.get(name)), percent(student[name]), percent(kept))
        for name, title in names.items()
        if name in student
        for kept in [_ratio(student[name], teacher.get(name)) if name != "repetition" else None]
    ]


def _ratio(over: float, under: float | None) -> float | None:
    return over / under if under else None


def _footer(facts: Facts) -> str:
    against = facts.get("against")
    original = f" Original: {against['source']}." if against else ""
    return f"Written by `bitnet-train evaluate`.{original} The figures are in facts/evaluate.json of the run."
