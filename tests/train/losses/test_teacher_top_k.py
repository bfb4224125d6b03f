from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from bitnet_train.train.losses.logit_loss import LogitWeights, TeacherLogits, logit_loss
from bitnet_train.train.losses.teacher_top_k import summarise

R, V = 6, 13


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    student, teacher = (4 * torch.randn(R, V, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher


def divergence(student: torch.Tensor, target, weights: LogitWeights) -> torch.Tensor:
    return logit_loss(student, target, torch.zeros(len(student), dtype=torch.int64), weights)[0]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_tokens_give_the_full_divergence_and_its_gradient(logits: tuple, temperature: float) -> None:
    student, teacher = logits
    weights = LogitWeights(kl=1.0, temperature=temperature)
    grads, losses = [], []
    for target in (TeacherLogits(teacher), summarise(teacher, V, temperature, torch.float64)):
        x = student.clone().requires_grad_()
        losses.append(divergence(x, target, weights))
        grads.append(torch.autograd.grad(losses[-1], x)[0])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*grads)


def test_fewer_tokens_never_see_more_divergence(logits: tuple) -> None:
    student, teacher = logits
    for row in range(R):
        x, t = student[row : row + 1], teacher[row : row + 1]
        by_k = [
            float(divergence(x, summarise(t, k, dtype=torch.float64), LogitWeights(kl=1.0))) for k in range(1, V + 1)
        ]
        assert all(less <= more + 1e-12 for less, more in pairwise(by_k))
        assert by_k[-1] == pytest.approx(float(divergence(x, TeacherLogits(t), LogitWeights(kl=1.0))))
        assert by_k[0] >= 0.0


@pytest.mark.parametrize("weights", [LogitWeights(kl=1.0), LogitWeights(kl=0.7, ce=0.4, temperature=1.7)], ids=str)
def test_the_gradient_agrees_with_finite_differences(logits: tuple, weights: LogitWeights) -> None:
    student, teacher = logits
    target = summarise(teacher, 3, weights.temperature, torch.float64)
    assert torch.autograd.gradcheck(lambda x: divergence(x, target, weights), student.clone().requires_grad_())


def test_the_share_of_the_rest_is_all_that_is_asked_of_unseen_tokens(logits: tuple) -> None:
    """A student that has the teacher's k probabilities, and shares out the rest as it likes, is at the minimum."""
    _, teacher = logits
    target = summarise(teacher, 4, dtype=torch.float64)
    probabilities = torch.full((R, V), 0.0, dtype=torch.float64)
    rest = target.log_probabilities[:, -1:].exp()
    share = torch.rand(R, V, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).scatter(
        1, target.token_ids, 0.0
    )
    probabilities += rest * share / share.sum(-1, keepdim=True)
    probabilities.scatter_(1, target.token_ids, target.log_probabilities[:, :-1].exp())
    student = probabilities.log().requires_grad_()
    loss = divergence(student, target, LogitWeights(kl=1.0))
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-12)
    assert float(torch.autograd.grad(loss, student)[0].abs().max()) < 1e-12


def test_half_precision_storage_costs_little(logits: tuple) -> None:
    student, teacher = logits
    exact = divergence(student, summarise(teacher, 5, dtype=torch.float64), LogitWeights(kl=1.0))
    stored = divergence(student, summarise(teacher, 5), LogitWeights(kl=1.0))
    # a log-probability of magnitude below 32 is off by at most 2^-7; its probability weighs it
    assert float(stored) == pytest.approx(float(exact), rel=2**-7)
