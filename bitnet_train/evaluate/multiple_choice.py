r"""Multiple choice by log-likelihood, as EleutherAI's lm-evaluation-harness does it.

A row of the file:  {"question": "...", "choices": ["...", "..."], "answer": 0}       answer: index, or a letter "A"
                or  {"context": "...",  "choices": ["...", "..."], "answer": "B"}

A question is asked as "Question: ...\nAnswer:", a context stands as it is; the continuation is a space and the choice,
or the choice alone where white space is there already.

    acc        share of rows whose right choice has the highest log-likelihood
    acc_norm   the same, of log-likelihood / bytes of the choice; lm-eval calls it `acc_bytes`, and its own `acc_norm`
               divides by characters, which is the same for ASCII
    stderr     sqrt(p (1 - p) / (n - 1))
    retention               acc of the student / acc of the teacher
    above_chance_retention  the same with chance (mean of 1 / number of choices) taken off both
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from bitnet_train.evaluate.jsonl import Row, read_rows
from bitnet_train.evaluate.likelihood import Likelihood, encode_pair, log_likelihoods
from bitnet_train.evaluate.measured import Accuracy, Choices, Retained

_FIELDS = ("question", "context")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Question:
    """What is asked, ready to be continued, the choices, and the index of the right one."""

    context: str
    choices: tuple[str, ...]
    answer: int

    def continuation(self, choice: str) -> str:
        """Return a choice as it follows the context."""
        spaced = not self.context or self.context[-1].isspace() or choice[0].isspace()
        return choice if spaced else f" {choice}"


def read_questions(path: str | Path, key: str = "evaluate.choices") -> list[Question]:
    """Read a file of rows; ConfigError or DataError names the file, the line and the field that is wrong."""
    return [_question(row) for row in read_rows(Path(path), key)]


def answer(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    max_tokens: int,
    *,
    description: str = "multiple choice",
) -> Accuracy:
    """Score every choice of every question with a causal LM whose context is `max_tokens` tokens."""
    asked = [(question, choice) for question in questions for choice in question.choices]
    pairs = [encode_pair(tokenizer, question.context, question.continuation(choice)) for question, choice in asked]
    scores = iter(log_likelihoods(model, pairs, max_tokens, description=description))
    return accuracy(questions, [[next(scores) for _ in question.choices] for question in questions])


def accuracy(questions: Sequence[Question], likelihoods: Sequence[Sequence[Likelihood]]) -> Accuracy:
    """Return accuracy and normalised accuracy from the likelihood of every choice of every question."""
    plain, normalised = 0, 0
    for question, found in zip(questions, likelihoods, strict=True):
        scores = [one.log_prob for one in found]
        per_byte = [score / len(choice.encode()) for score, choice in zip(scores, question.choices, strict=True)]
        plain += _best(scores) == question.answer
        normalised += _best(per_byte) == question.answer
    count = len(questions)
    return Accuracy(
        plain / count, _stderr(plain / count, count), normalised / count, _stderr(normalised / count, count)
    )


def chance(questions: Sequence[Question]) -> float:
    """Return the accuracy of guessing."""
    return sum(1 / len(question.choices) for question in questions) / len(questions)


def retained(student: Accuracy, teacher: Accuracy, guessing: float) -> Retained:
    """Return retention and above-chance retention of both accuracies."""
    return Retained(
        _ratio(student.acc, teacher.acc),
        _ratio(student.acc_norm, teacher.acc_norm),
        _ratio(student.acc - guessing, teacher.acc - guessing),
        _ratio(student.acc_norm - guessing, teacher.acc_norm - guessing),
    )


def compare_answers(name: str, questions: Sequence[Question], student: Accuracy, teacher: Accuracy | None) -> Choices:
    """Return the figures of one file of questions, called `name`."""
    guessing = chance(questions)
    kept = retained(student, teacher, guessing) if teacher is not None else None
    return Choices(name, len(questions), guessing, student, teacher, kept)


def _question(row: Row) -> Question:
    named = [name for name in _FIELDS if name in row.fields]
    if len(named) != 1:
        raise row.error("question", "a row has either `question` or `context`, and `choices` and `answer`.")
    choices = tuple(row.texts("choices", least=2))
    text = row.text(named[0])
    context = f"Question: {text}\nAnswer:" if named[0] == "question" else text
    return Question(context, choices, _answer(row, len(choices)))


def _answer(row: Row, count: int) -> int:
    given = row.fields.get("answer")
    if isinstance(given, str) and len(given) == 1 and given.upper() in _LETTERS[:count]:
        return _LETTERS.index(given.upper())
    if type(given) is int and 0 <= given < count:
        return given
    raise row.error(
        "answer",
        f"an index from 0 to {count - 1} or a letter from A to {_LETTERS[count - 1]} is needed, got {given!r}.",
    )


def _best(scores: list[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def _stderr(share: float, count: int) -> float | None:
    return math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else None


def _ratio(over: float, under: float) -> float | None:
    return over / under if under > 0 else None
