from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bitnet_train.errors import ConfigError
from bitnet_train.train.losses import logit_loss, token_losses
from bitnet_train.train.losses.settings import LossConfig

B, L, V, H = 3, 7, 11, 5


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(V, (B, L), generator=generator)
    labels[0, 2:] = -100
    labels[1, :3] = -100
    return {
        "student": torch.randn(B, L, V, generator=generator, dtype=torch.float64),
        "teacher": torch.randn(B, L, V, generator=generator, dtype=torch.float64),
        "labels": labels,
    }


def trained_positions(labels: torch.Tensor) -> list[tuple[int, int]]:
    return [(b, t) for b in range(B) for t in range(L - 1) if labels[b, t + 1] != -100]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_kl_is_the_sum_of_the_definition_over_trained_positions(batch: dict, temperature: float) -> None:
    expected = torch.zeros((), dtype=torch.float64)
    for b, t in trained_positions(batch["labels"]):
        p = (batch["teacher"][b, t] / temperature).softmax(-1)
        q = (batch["student"][b, t] / temperature).softmax(-1)
        expected += temperature**2 * (p * (p / q).log()).sum()
    found = token_losses.kl(batch["student"], batch["teacher"], batch["labels"], temperature)
    torch.testing.assert_close(found, expected)


def test_kl_of_equal_logits_is_zero_and_otherwise_positive(batch: dict) -> None:
    assert float(token_losses.kl(batch["student"], batch["student"], batch["labels"])) == 0.0
    assert float(token_losses.kl(batch["student"], batch["teacher"], batch["labels"])) > 0.0


def test_ce_agrees_with_the_shifted_sum(batch: dict) -> None:
    expected = F.cross_entropy(
        batch["student"][:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
    )
    torch.testing.assert_close(token_losses.ce(batch["student"], batch["labels"]), expected)


def test_positions_that_are_not_trained_change_nothing_and_get_no_gradient(batch: dict) -> None:
    student = batch["student"].clone().requires_grad_()
    (token_losses.kl(student, batch["teacher"], batch["labels"]) + token_losses.ce(student, batch["labels"])).backward()
    moved = {(b, t) for b, t in student.grad.abs().sum(-1).nonzero().tolist()}
    assert moved == set(trained_positions(batch["labels"]))


def test_more_positions_than_a_chunk_give_the_same_sum_and_gradient(
    batch: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both() -> tuple[torch.Tensor, torch.Tensor]:
        student = batch["student"].clone().requires_grad_()
        loss = token_losses.kl(student, batch["teacher"], batch["labels"]) + token_losses.ce(student, batch["labels"])
        loss.backward()
        return loss.detach(), student.grad

    whole = both()
    monkeypatch.setattr(logit_loss, "CPU_CHUNK_BYTES", 4 * V * torch.float64.itemsize)
    assert len(trained_positions(batch["labels"])) > 4
    for one, other in zip(whole, both(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_micro_batch_without_trained_positions_is_zero_but_keeps_its_graph(batch: dict) -> None:
    student = batch["student"].clone().requires_grad_()
    none = torch.full((B, L), -100)
    loss = (
        token_losses.kl(student, batch["teacher"], none)
        + token_losses.ce(student, none)
        + token_losses.hidden([student], [student], none)
    )
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not student.grad.any()


def test_hidden_ignores_the_length_of_states_and_averages_over_layers(batch: dict) -> None:
    states = [torch.randn(B, L, H, dtype=torch.float64) for _ in range(4)]
    assert float(token_losses.hidden(states[:2], [7 * h for h in states[:2]], batch["labels"])) == pytest.approx(
        0.0, abs=1e-12
    )
    one = token_losses.hidden(states[:1], states[2:3], batch["labels"])
    two = token_losses.hidden(states[1:2], states[3:], batch["labels"])
    torch.testing.assert_close(token_losses.hidden(states[:2], states[2:], batch["labels"]), (one + two) / 2)


def test_hidden_of_opposite_states_is_four_per_position(batch: dict) -> None:
    states = [torch.randn(B, L, H, dtype=torch.float64)]
    loss = token_losses.hidden(states, [-states[0]], batch["labels"])
    assert float(loss) == pytest.approx(4.0 * len(trained_positions(batch["labels"])))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_hidden_and_its_gradient_are_those_of_normalised_states(batch: dict, dtype: torch.dtype) -> None:
    states = [torch.randn(B, L, H, dtype=torch.float64).to(dtype) for _ in range(2)]
    trained = token_losses.next_labels(batch["labels"]) != -100
    states[0][~trained] = float("nan")  # what is not trained may hold anything

    student, exact = states[0].clone().requires_grad_(), states[0].double().requires_grad_()
    token_losses.hidden([student], [states[1]], batch["labels"]).backward()
    units = [F.normalize(s[trained], dim=-1) for s in (exact, states[1].double())]
    expected = (units[0] - units[1]).square().sum()
    expected.backward()

    # sums in float32 at least; a bfloat16 gradient is rounded once more, to 2^-9 of itself
    wide = torch.promote_types(dtype, torch.float32)
    close = {"atol": 64 * torch.finfo(wide).eps, "rtol": 64 * torch.finfo(wide).eps}
    torch.testing.assert_close(
        token_losses.hidden([student], [states[1]], batch["labels"]).double(), expected, **close, check_dtype=False
    )
    rounding = torch.finfo(torch.bfloat16).eps / 2 if dtype == torch.bfloat16 else close["rtol"]
    assert not student.grad[~trained].any()
    torch.testing.assert_close(
        student.grad[trained].double(), exact.grad[trained], atol=close["atol"], rtol=rounding + close["rtol"]
    )


def test_hidden_of_a_zero_state_is_finite(batch: dict) -> None:
    student = torch.zeros(B, L, H, requires_grad=True)
    loss = token_losses.hidden([student], [torch.randn(B, L, H)], batch["labels"])
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_counting_agrees_with_the_positions(batch: dict) -> None:
    assert token_losses.count_trained(batch["labels"]) == len(trained_positions(batch["labels"]))


def test_low_precision_logits_are_summed_in_float32(batch: dict) -> None:
    loss = token_losses.ce(batch["student"].bfloat16(), batch["labels"])
    assert loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("others", "hidden", "factor"), [(2.0, 0.5, 1.2), (1.0, 100.0, 0.003), (0.0, 1.0, 1.0), (1.0, 0.0, 1.0)]
)
def test_balance_brings_hidden_to_three_tenths_of_the_rest(others: float, hidden: float, factor: float) -> None:
    assert float(token_losses.balance_factor(torch.tensor(others), torch.tensor(hidden))) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kl": -1.0}, r"`loss\.kl=-1\.0`"),
        ({"kl": 0.0}, "nothing would be learnt"),
        ({"temperature": 0.0}, r"`loss\.temperature=0\.0` is out of range: it must be a finite number above 0"),
        ({"hidden": float("nan")}, r"`loss\.hidden=nan`"),
    ],
)
def test_weights_that_make_no_sense_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LossConfig(**options)


def test_the_gradient_of_states_in_another_memory_order_is_the_same(batch: dict) -> None:
    student, teacher = torch.randn(B, L, H), torch.randn(B, L, H)
    grads = []
    for states in (student.clone(), student.transpose(0, 2).contiguous().transpose(0, 2)):
        states.requires_grad_()
        token_losses.hidden([states], [teacher], batch["labels"]).backward()
        grads.append(states.grad)
    torch.testing.assert_close(*grads)
    assert not grads[0][token_losses.next_labels(batch["labels"]) == -100].any()
