"""What `bitnet-train evaluate` measured as lines for a terminal, one as soon as each file is done."""

from __future__ import annotations

from bitnet_train.bench.speed import DecodeSpeed
from bitnet_train.evaluate.measured import Choices, Prompts, ScoredText
from bitnet_train.report.figures import percent, times


def spoken(result: ScoredText | Choices | Prompts) -> str:
    """Return one line on one file, for a terminal."""
    match result:
        case ScoredText():
            return f"{result.name}: {_text_line(result)}"
        case Choices():
            return f"{result.name}: {_choices_line(result)}"
        case Prompts():
            return f"{result.name}: {_prompts_line(result)}"


def _text_line(text: ScoredText) -> str:
    compared = text.compared
    student, teacher = compared.student, compared.teacher
    line = f"perplexity {student.perplexity:.3f} over {student.tokens:,} tokens"
    if teacher is None:
        return line
    return (
        f"{line}, {times(compared.perplexity_ratio)} of {teacher.perplexity:.3f}; KL {compared.kl:.3f} nats, "
        f"top-1 agreement {percent(compared.top1_agreement)}"
    )


def _choices_line(result: Choices) -> str:
    line = f"accuracy {percent(result.student.acc)} of {result.questions} questions"
    if result.teacher is None:
        return f"{line}; chance {percent(result.chance)}"
    return f"{line}, original {percent(result.teacher.acc)}, chance {percent(result.chance)}"


def _prompts_line(result: Prompts) -> str:
    written = result.written
    if written is None:
        return f"skipped, {result.skipped}."
    line = f"{len(written.turns)} texts, repetition {percent(written.student.repetition)}"
    if written.agreement is None or written.teacher is None:
        return line
    return (
        f"{line}, original {percent(written.teacher.repetition)}; ROUGE-L with it {percent(written.agreement.rouge_l)}"
    )


def describe_speeds(speed: DecodeSpeed, original: DecodeSpeed | None) -> str:
    """Say how fast the packed model decodes, by what, and beside it how fast the one it is compared with does."""
    line = f"{speed.tokens_per_s:,.1f} tokens/s, {speed.describe_engine()}"
    reason = f", for the native runtime does not take it: {speed.not_native}" if speed.not_native else ""
    beside = (
        f"; the original {original.tokens_per_s:,.1f}, {original.describe_engine()}" if original is not None else ""
    )
    return line + reason + beside
