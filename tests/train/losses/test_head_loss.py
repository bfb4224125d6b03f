from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bitnet_train.model.rounded_table import RoundedLinear, round_parameters
from bitnet_train.train.losses import head_loss as module
from bitnet_train.train.losses.head_loss import TeacherStates, head_loss
from bitnet_train.train.losses.logit_loss import IGNORED, LOGIT_TERMS, LogitWeights, Target, TeacherLogits, logit_loss
from bitnet_train.train.losses.teacher_top_k import summarise

B, L, D, V = 2, 9, 6, 11
MIXES = [
    LogitWeights(kl=1.0),
    LogitWeights(kl=0.5, reverse_kl=0.7, ce=0.3, temperature=2.0),
    LogitWeights(ce=1.0),
]


class Given:
    """States, a head, a teacher and targets with a gap, all float64."""

    def __init__(self, bias: bool = True) -> None:
        torch.manual_seed(1)
        self.states = torch.randn(B, L, D).double()
        self.head, self.teacher_head = nn.Linear(D, V, bias=bias).double(), nn.Linear(D, V).double()
        self.teacher = TeacherStates(torch.randn(B * L, D).double(), self.teacher_head)
        self.targets = torch.randint(V, (B, L))
        self.targets[0, 3], self.targets[:, -1] = IGNORED, IGNORED

    def to(self, dtype: torch.dtype) -> Given:
        self.states, self.head = self.states.to(dtype), self.head.to(dtype)
        self.teacher = TeacherStates(self.teacher.states.to(dtype), self.teacher_head.to(dtype))
        return self

    def whole(self) -> TeacherLogits:
        return self.teacher.at(slice(None))


def both(given: Given, weights: LogitWeights, target: Target, scale: float = 0.25) -> list[tuple[Tensor, ...]]:
    """(loss, sums, gradients by states and by what of the head trains), in parts and with all logits."""
    found = []
    for in_parts in (True, False):
        states = given.states.clone().requires_grad_()
        inputs = [states, *(p for p in given.head.parameters() if p.requires_grad)]
        if in_parts:
            loss, sums = head_loss(states, given.head, target, given.targets, weights, scale)
        else:
            loss, sums = logit_loss(given.head(states), target, given.targets, weights, scale)
        found.append((loss.detach(), sums, *torch.autograd.grad(3.0 * loss, inputs)))
    return found


@pytest.mark.parametrize("weights", MIXES, ids=str)
@pytest.mark.parametrize("chunk_rows", [1, 4, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_value_and_gradients_are_those_of_whole_logits(
    weights: LogitWeights, chunk_rows: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CPU_CHUNK_ROWS", chunk_rows)
    given = Given(bias)
    ours, theirs = both(given, weights, given.teacher)
    assert len(ours) == 4 + bias
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("weights", MIXES, ids=str)
def test_the_gradients_agree_with_finite_differences(weights: LogitWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_CHUNK_ROWS", 4)
    given = Given()
    inputs = (given.states.requires_grad_(), given.head.weight, given.head.bias)

    def loss(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return head_loss(states, given.head, given.teacher, given.targets, weights)[0]

    assert torch.autograd.gradcheck(loss, inputs)


def test_in_float32_the_sum_over_chunks_is_the_sum_over_all_rows_up_to_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CPU_CHUNK_ROWS", 4)
    given = Given().to(torch.float32)
    ours, theirs = both(given, LogitWeights(kl=1.0), given.teacher)
    # an entry of dW sums 15 products g h of |g| <= scale (times 3) and |h| < 4 in either order; each of g's own two
    # softmaxes and every addition rounds once: (15 + 15 + 20) * 2^-24 of the largest sum of magnitudes, 15 * 0.75 * 4
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=50 * 2**-24, atol=50 * 2**-24 * 45)


def test_a_head_that_is_frozen_gets_no_gradient_and_the_states_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_CHUNK_ROWS", 4)
    given = Given()
    trained = both(given, MIXES[0], given.teacher)[0]
    given.head.requires_grad_(False)
    frozen = both(given, MIXES[0], given.teacher)[0]
    assert len(frozen) == 3
    assert torch.equal(frozen[2], trained[2])


def test_the_likeliest_tokens_of_a_teacher_are_taken_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_CHUNK_ROWS", 4)
    given = Given()
    top_k = summarise(given.whole().logits, 3)
    for one, other in zip(*both(given, MIXES[0], top_k), strict=True):
        torch.testing.assert_close(one, other)


def test_under_autocast_the_products_are_bfloat16_and_the_gradients_those_of_their_types(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CPU_CHUNK_ROWS", 4)
    exact = both(Given(), LogitWeights(kl=1.0), Given().teacher)[0]
    low = Given().to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = both(low, LogitWeights(kl=1.0), low.teacher)[0]
    assert all(tensor.dtype == torch.float32 for tensor in ours)
    for one, other in zip(ours, exact, strict=True):
        # 2^-8 for a rounding of both factors and of the logits, below 8, which move a probability by 8 * 2^-8 of it
        torch.testing.assert_close(one.double(), other, rtol=0.1, atol=0.1 * float(other.abs().max()))


def test_without_a_gradient_the_head_computes_as_it_does_in_evaluation() -> None:
    given = Given(bias=False).to(torch.float32)
    rounded = RoundedLinear.taking_over(given.head).eval()
    round_parameters(rounded)
    weights = LogitWeights(kl=1.0, ce=1.0)
    with torch.no_grad():
        _, sums = head_loss(given.states, rounded, given.teacher, given.targets, weights)
        _, expected = logit_loss(rounded(given.states), given.whole(), given.targets, weights)
        _, float_sums = logit_loss(rounded.train()(given.states), given.whole(), given.targets, weights)
    text = LOGIT_TERMS.index("ce")
    assert sums[text] == expected[text] != float_sums[text]
    # the teacher's logits of some rows may be summed in another order: a few roundings of 2^-24
    torch.testing.assert_close(sums, expected, rtol=2**-20, atol=0)


def test_two_backward_passes_over_one_graph_give_the_same() -> None:
    given = Given()
    states = given.states.requires_grad_()
    loss, _ = head_loss(states, given.head, given.teacher, given.targets, MIXES[0])
    inputs = (states, given.head.weight)
    one = [g.clone() for g in torch.autograd.grad(loss, inputs, retain_graph=True)]
    doubled = torch.autograd.grad(2 * loss, inputs, retain_graph=True)
    for first, twice, again in zip(one, doubled, torch.autograd.grad(loss, inputs), strict=True):
        torch.testing.assert_close(twice, 2 * first)
        assert torch.equal(again, first)


def test_rows_of_which_none_is_trained_give_zeros() -> None:
    given = Given()
    given.targets.fill_(IGNORED)
    for made in both(given, MIXES[0], given.teacher)[0]:
        assert not made.any()


class Largest(TorchDispatchMode):
    """The rows of the largest tensor over the vocabulary that any operator makes."""

    rows = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.ndim == 2 and made.shape[1] == V:
            self.rows = max(self.rows, len(made))
        return made


def test_no_tensor_has_a_row_of_logits_for_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU_CHUNK_ROWS", 4)
    given, before = Given(), torch.get_num_threads()
    torch.set_num_threads(1)  # a mode sees only what its own thread does
    try:
        with Largest() as seen:
            both(given, MIXES[1], given.teacher)
            assert seen.rows == B * L, "the other way makes them all"
            seen.rows = 0
            head_loss(given.states, given.head, given.teacher, given.targets, MIXES[1])[0].backward()
    finally:
        torch.set_num_threads(before)
    assert 0 < seen.rows <= D, "four rows of logits; a transposed weight has D"
