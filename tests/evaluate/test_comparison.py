from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from bitnet_train.errors import DataError
from bitnet_train.evaluate.comparison import compare
from bitnet_train.evaluate.perplexity import perplexity


@torch.no_grad()
def log_probs(model, rows):
    """All labelled predictions [T, vocabulary] in float64, and their labels [T]."""
    logits = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits[:, :-1].double()
    labels = rows["labels"][:, 1:]
    return log_softmax(logits[labels != -100], dim=-1), labels[labels != -100]


def test_perplexities_are_those_that_each_model_has_alone(student, teacher, rows) -> None:
    found = compare(student, teacher, rows)
    assert found.student.nats == pytest.approx(perplexity(student, rows).nats, rel=1e-9)
    assert found.teacher.nats == pytest.approx(perplexity(teacher, rows).nats, rel=1e-9)
    assert found.perplexity_ratio == pytest.approx(math.exp(found.student.nats - found.teacher.nats))


def test_kl_and_agreement_are_what_whole_tensors_give(student, teacher, rows) -> None:
    found = compare(student, teacher, rows, batch_rows=3)
    (ours, _), (theirs, _) = log_probs(student, rows), log_probs(teacher, rows)
    expected = kl_div(ours, theirs, log_target=True, reduction="batchmean")
    assert found.kl == pytest.approx(float(expected), rel=1e-5)
    assert found.kl > 0.1
    assert found.top1_agreement == pytest.approx(float((ours.argmax(-1) == theirs.argmax(-1)).double().mean()))


def test_confidence_calibration_and_entropy_are_what_whole_tensors_give(student, rows) -> None:
    score = compare(student, None, rows).student
    found, labels = log_probs(student, rows)
    confidence, hits = found.exp().max(-1).values, (found.argmax(-1) == labels).double()
    assert score.accuracy == pytest.approx(float(hits.mean()))
    assert score.confidence == pytest.approx(float(confidence.mean()), rel=1e-6)
    assert score.overconfidence == pytest.approx(float(confidence.mean() - hits.mean()), rel=1e-5)
    assert score.entropy == pytest.approx(float(-(found.exp() * found).sum(-1).mean()), rel=1e-5)
    bins = (confidence * 15).long().clamp(max=14)
    expected = sum(abs(float((hits - confidence)[bins == number].sum())) for number in range(15)) / len(labels)
    assert score.calibration_error == pytest.approx(expected, rel=1e-5)


def test_a_model_compared_with_itself_differs_in_nothing(student, rows) -> None:
    found = compare(student, student, rows)
    assert (found.perplexity_ratio, found.kl, found.top1_agreement, found.confidence_skew) == (1, 0, 1, 0)
    assert all(bucket.retention in (1, None) for bucket in found.buckets)


def test_a_sharper_model_shows_as_confidence_skew(teacher, rows) -> None:
    sharp = deepcopy(teacher)
    with torch.no_grad():
        sharp.lm_head.weight.mul_(3)
    found = compare(sharp, teacher, rows)
    assert found.confidence_skew > 0.05
    assert found.top1_agreement == 1
    assert found.student.overconfidence > found.teacher.overconfidence


def test_buckets_hold_every_token_once_and_their_recall_adds_up_to_the_accuracy(student, teacher, rows) -> None:
    found = compare(student, teacher, rows)
    assert [bucket.name for bucket in found.buckets] == ["frequent", "common", "uncommon", "rare"]
    assert sum(bucket.tokens for bucket in found.buckets) == found.student.tokens
    for name in ("student", "teacher"):
        right = sum(getattr(bucket, name) * bucket.tokens for bucket in found.buckets)
        assert right / found.student.tokens == pytest.approx(getattr(found, name).accuracy)


def test_a_model_that_lost_the_rare_tokens_shows_in_the_rare_buckets(teacher, rows) -> None:
    counts = torch.bincount(rows["labels"][rows["labels"] != -100], minlength=257)
    cut = deepcopy(teacher)
    head = torch.nn.Linear(32, 257)
    with torch.no_grad():
        head.weight.copy_(cut.lm_head.weight)
        head.bias.fill_(-1e4)
        head.bias[counts.topk(3).indices] = 0
    cut.lm_head = head
    found = {bucket.name: bucket for bucket in compare(cut, teacher, rows).buckets}
    assert [found[name].student for name in ("uncommon", "rare")] == [0, 0]
    assert found["frequent"].student > 0
    assert found["frequent"].tokens > found["rare"].tokens
    assert found["frequent"].types < found["rare"].types


def test_without_a_teacher_what_needs_one_is_absent(student, rows) -> None:
    found = compare(student, None, rows)
    assert (found.teacher, found.perplexity_ratio, found.kl, found.top1_agreement) == (None, None, None, None)
    assert all(bucket.teacher is None for bucket in found.buckets)


def test_dropout_is_off_while_comparing_and_every_module_keeps_its_mode(student, teacher, rows) -> None:
    expected = compare(student, teacher, rows)
    student.model.layers[0].train()
    try:
        assert compare(student, teacher, rows) == expected
        assert student.model.layers[0].training
    finally:
        student.eval()


def test_a_teacher_of_another_vocabulary_and_rows_without_labels_are_refused(student, rows, make_model) -> None:
    with pytest.raises(DataError, match=r"257 tokens and the teacher 300.*`evaluate.against=MODEL`"):
        compare(student, make_model(1, vocabulary=300), rows)
    rows["labels"][:] = -100
    with pytest.raises(DataError, match="at least one labelled token"):
        compare(student, None, rows)
