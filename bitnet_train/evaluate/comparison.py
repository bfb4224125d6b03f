"""A 1-bit student beside its teacher on the same tokens, in one pass over the rows.

    perplexity_ratio    student / teacher
    kl                  mean over tokens of sum_v p_teacher(v) (log p_teacher(v) - log p_student(v)), nats
    top1_agreement      share of tokens where both hold the same token likeliest
    confidence_skew     mean highest probability, student - teacher
    buckets             top-1 accuracy (recall) by frequency class of the token to predict, frequent to rare

Logits of one batch of both models are in memory, and log-probabilities of 256 positions at a time. Without a teacher
the student's own figures remain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from bitnet_train.errors import DataError
from bitnet_train.evaluate.batches import (
    IGNORED,
    Batch,
    batches,
    count_labels,
    evaluation_mode,
    logits_of,
    vocabulary_of,
)
from bitnet_train.evaluate.dealing import Dealing
from bitnet_train.evaluate.frequency import CLASSES, classify, count_types
from bitnet_train.evaluate.measured import Bucket, Comparison
from bitnet_train.evaluate.perplexity import no_labels
from bitnet_train.evaluate.tally import Tally
from bitnet_train.progress import track

_POSITIONS = 256  # whose log-probabilities are held at once
ALONE = Dealing()


def compare(
    student: nn.Module,
    teacher: nn.Module | None,
    rows: Batch | Iterable[Batch],
    *,
    batch_rows: int | None = None,
    description: str = "comparing",
    dealing: Dealing = ALONE,
) -> Comparison:
    """Measure `student`, and `teacher` where there is one, on the labelled tokens of `rows`.

    rows: one batch or several, each {input_ids, labels, attention_mask (optional)} int64 [R, L]; labels are not
    shifted, -100 = not counted. Models are put in evaluation mode for this and left as they were; they may lie on
    different devices. `description` names the progress bar. `dealing`: which process this is where several measure the
    same together; each returns the figures of all. Raises DataError when no token is labelled, and when the two
    vocabularies differ in size.
    """
    parts = [batch for batch in batches(rows, batch_rows, vocabulary_of(student)) if count_labels(batch)]
    if not parts:
        raise no_labels()
    counts = count_types(parts, vocabulary_of(student))
    classes, models = classify(counts), [student] if teacher is None else [student, teacher]
    own = dealing.own(parts)
    with evaluation_mode(*models):
        made = [_measured(models, batch, classes) for batch in track(own, description, total=len(own))]
    return _comparison(_Sums.of(dealing.gathered(made), len(models)), counts, classes)


def _measured(models: list[nn.Module], batch: Batch, classes: Tensor) -> _Sums:
    """Return the sums over one batch."""
    sums, logits = _Sums(len(models)), [logits_of(model, batch) for model in models]
    _check_vocabularies(logits)
    for labels, parts_of_logits in _positions(batch, logits):
        sums.add([part.float().log_softmax(dim=-1) for part in parts_of_logits], labels, classes[labels])
    return sums


class _Sums:
    """Running sums: a tally for each model, and what the two predictions have to do with each other."""

    def __init__(self, num_models: int) -> None:
        self.tallies = [Tally() for _ in range(num_models)]
        self.kl, self.agreed = 0.0, 0

    @classmethod
    def of(cls, parts: Iterable[_Sums], num_models: int) -> _Sums:
        """Return the sums of all parts, added in their order."""
        total = cls(num_models)
        for part in parts:
            for tally, other in zip(total.tallies, part.tallies, strict=True):
                tally.include(other)
            total.kl += part.kl
            total.agreed += part.agreed
        return total

    def add(self, log_probs: list[Tensor], labels: Tensor, classes: Tensor) -> None:
        guesses = [
            tally.add(part, labels.to(part.device), classes.to(part.device))
            for tally, part in zip(self.tallies, log_probs, strict=True)
        ]
        if len(log_probs) > 1:
            student, teacher = log_probs[0].to(log_probs[1].device), log_probs[1]
            self.kl += float((teacher.exp() * (teacher - student)).sum(dim=-1).double().sum())
            self.agreed += int((guesses[0].to(teacher.device) == guesses[1]).sum())


def _positions(batch: Batch, logits: list[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield the labels of up to 256 positions, int64 [T], and each model's logits for them, [T, vocabulary]."""
    for row, labels in enumerate(batch["labels"]):
        places = (labels[1:] != IGNORED).nonzero().flatten()
        for some in places.split(_POSITIONS):
            yield labels[some + 1].cpu(), [values[row, some.to(values.device)] for values in logits]


def _check_vocabularies(logits: list[Tensor]) -> None:
    sizes = [values.shape[-1] for values in logits]
    if len(set(sizes)) > 1:
        raise DataError(
            f"The student predicts {sizes[0]} tokens and the teacher {sizes[1]}: their vocabularies differ, so their "
            "predictions cannot be compared. Name the model it was made from: `evaluate.against=MODEL`."
        )


def _comparison(sums: _Sums, counts: Tensor, classes: Tensor) -> Comparison:
    tallies = sums.tallies
    scores = [tally.score() for tally in tallies]
    student, teacher = scores[0], scores[1] if len(scores) > 1 else None
    buckets = tuple(_bucket(number, tallies, counts[classes == number]) for number in range(len(CLASSES)))
    if teacher is None:
        return Comparison(student, None, buckets)
    return Comparison(
        student,
        teacher,
        buckets,
        student.perplexity / teacher.perplexity,
        sums.kl / student.tokens,
        sums.agreed / student.tokens,
        student.confidence - teacher.confidence,
    )


def _bucket(number: int, tallies: list[Tally], counts: Tensor) -> Bucket:
    tokens = int(counts.sum())
    recalls = [tally.hits[number] / tokens if tokens else None for tally in tallies]
    student, teacher = recalls[0], recalls[1] if recalls[1:] else None
    retention = student / teacher if student is not None and teacher else None
    return Bucket(CLASSES[number], int((counts > 0).sum()), tokens, student, teacher, retention)
