from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bitnet_train.train.losses import logit_loss as module
from bitnet_train.train.losses.logit_loss import IGNORED, LogitWeights, TeacherLogits, logit_loss

B, L, V = 2, 5, 7
MIXES = [
    LogitWeights(kl=1.0),
    LogitWeights(kl=0.5, temperature=2.0),
    LogitWeights(reverse_kl=1.0),
    LogitWeights(reverse_kl=0.7, temperature=0.5),
    LogitWeights(ce=1.0),
    LogitWeights(kl=1.0, reverse_kl=0.5, ce=0.3),
    LogitWeights(kl=1.0, reverse_kl=0.5, ce=0.3, temperature=3.0),
]


@pytest.fixture
def given() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    student, teacher = (3 * torch.randn(B, L, V, generator=generator, dtype=torch.float64) for _ in range(2))
    targets = torch.randint(V, (B, L), generator=generator)
    targets[0, 2], targets[1, -1] = IGNORED, IGNORED
    return student, teacher, targets


def definition(student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, w: LogitWeights) -> torch.Tensor:
    """The table of the module docstring, spelled with torch's own differentiable functions."""
    trained = targets != IGNORED
    q, p = (F.log_softmax(x[trained] / w.temperature, -1) for x in (student, teacher))
    forward = w.temperature**2 * (p.exp() * (p - q)).sum()
    reverse = w.temperature**2 * (q.exp() * (q - p)).sum()
    ce = F.cross_entropy(student[trained], targets[trained], reduction="sum")
    return w.kl * forward + w.reverse_kl * reverse + w.ce * ce


@pytest.mark.parametrize("weights", MIXES, ids=str)
@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
def test_value_and_gradient_are_those_of_the_definition(
    given: tuple, weights: LogitWeights, chunk_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CPU_CHUNK_BYTES", chunk_rows * V * torch.float64.itemsize)
    student, teacher, targets = given
    ours, theirs = student.clone().requires_grad_(), student.clone().requires_grad_()
    loss, _ = logit_loss(ours, TeacherLogits(teacher.flatten(0, 1)), targets, weights, 0.25)
    expected = 0.25 * definition(theirs, teacher, targets, weights)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(3.0 * value, x)[0] for value, x in ((loss, ours), (expected, theirs)))
    )


@pytest.mark.parametrize("weights", MIXES, ids=str)
def test_the_gradient_agrees_with_finite_differences(given: tuple, weights: LogitWeights) -> None:
    student, teacher, targets = given
    target = TeacherLogits(teacher.flatten(0, 1))
    assert torch.autograd.gradcheck(
        lambda x: logit_loss(x, target, targets, weights)[0], student.clone().requires_grad_()
    )


def test_the_plain_sums_are_unweighted_and_terms_that_are_off_are_zero(given: tuple) -> None:
    student, teacher, targets = given
    _, sums = logit_loss(student, TeacherLogits(teacher.flatten(0, 1)), targets, LogitWeights(kl=0.5, ce=0.1), 9.0)
    alone = [definition(student, teacher, targets, weights) for weights in (LogitWeights(kl=1), LogitWeights(ce=1))]
    torch.testing.assert_close(sums, torch.stack([alone[0], torch.zeros_like(alone[0]), alone[1]]))
    assert not sums.requires_grad


def test_the_gradient_has_the_type_of_the_logits_and_is_rounded_once(given: tuple) -> None:
    student, teacher, targets = given
    low = student.bfloat16()
    exact = low.double().requires_grad_()
    ours = low.clone().requires_grad_()
    scale = 1 / 37
    logit_loss(ours, TeacherLogits(teacher.bfloat16().flatten(0, 1)), targets, LogitWeights(kl=1), scale)[0].backward()
    (scale * definition(exact, teacher.bfloat16().double(), targets, LogitWeights(kl=1))).backward()
    assert ours.grad.dtype == torch.bfloat16
    # half a unit of bfloat16 (2^-9), and the float32 arithmetic of a difference of two numbers up to 1 (2^-20)
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=2**-8, atol=scale * 2**-20)


def test_rows_with_a_gap_between_them_have_the_gradient_of_rows_that_follow_each_other(given: tuple) -> None:
    student, teacher, targets = given
    gap = torch.arange(targets.numel()).reshape(targets.shape) % 3 == 1
    grads = []
    for chosen in (targets.clamp(min=0), targets.clamp(min=0).masked_fill(gap, -100)):
        logits = student.float().requires_grad_()
        logit_loss(logits, TeacherLogits(teacher.float().flatten(0, 1)), chosen, LogitWeights(kl=1), 0.3)[0].backward()
        grads.append(logits.grad)
    assert torch.equal(grads[0][~gap], grads[1][~gap])
    assert grads[0][gap].any()
    assert not grads[1][gap].any()


def test_equal_models_have_no_divergence_and_no_gradient(given: tuple) -> None:
    student, _, targets = given
    low = student.float().requires_grad_()
    loss, _ = logit_loss(low, TeacherLogits(low.detach().flatten(0, 1)), targets, LogitWeights(kl=1, reverse_kl=1))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert float(low.grad.abs().max()) == 0.0


def test_extreme_logits_stay_finite() -> None:
    student = torch.tensor([[[1e4, -1e4, 0.0], [-3e4, 3e4, 1.0]]]).requires_grad_()
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [3e4, -3e4, 1.0]])
    weights = LogitWeights(kl=1, reverse_kl=1, ce=1)
    loss, _ = logit_loss(student, TeacherLogits(teacher), torch.tensor([[0, 1]]), weights)
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(student.grad.isfinite().all())


def test_two_backward_passes_over_one_graph_give_the_same(given: tuple) -> None:
    student, teacher, targets = given
    logits = student.clone().requires_grad_()
    loss, _ = logit_loss(logits, TeacherLogits(teacher.flatten(0, 1)), targets, LogitWeights(kl=1))
    one = torch.autograd.grad(loss, logits, retain_graph=True)[0].clone()
    doubled = torch.autograd.grad(2 * loss, logits, retain_graph=True)[0]
    torch.testing.assert_close(doubled, 2 * one)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], one)


def test_nothing_is_kept_for_a_backward_pass_that_cannot_come(given: tuple) -> None:
    student, teacher, targets = given
    with torch.no_grad():
        loss, _ = logit_loss(student.clone().requires_grad_(), TeacherLogits(teacher.flatten(0, 1)), targets, MIXES[0])
    assert not loss.requires_grad


def test_several_threads_give_the_same_bits_and_keep_torchs_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_CHUNK_BYTES", 4096)
    generator = torch.Generator().manual_seed(3)
    student, teacher = torch.randn(40, 256, generator=generator), torch.randn(40, 256, generator=generator)
    targets, before, made = torch.randint(256, (1, 40), generator=generator), torch.get_num_threads(), []
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            logits = student[None].clone().requires_grad_()
            loss, _ = logit_loss(logits, TeacherLogits(teacher), targets, LogitWeights(kl=1, ce=0.5), 0.1)
            loss.backward()
            made.append((loss.detach(), logits.grad))
            assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))
