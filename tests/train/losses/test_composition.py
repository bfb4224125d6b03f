from __future__ import annotations

import pytest
import torch

from bitnet_train.model.rounded_table import round_floats
from bitnet_train.train.losses import head_loss
from bitnet_train.train.losses.composition import NO_HEADS, Heads, forward, held_out_sums, token_sums, total_loss
from bitnet_train.train.losses.settings import LossConfig
from tests.fixtures.families import CONFIGS, converted_model, tiny_model, token_ids

LOSS = LossConfig(kl=1.0, ce=0.3, hidden=1.0)
BALANCE = {"hidden": torch.ones(())}


@pytest.mark.parametrize("family", CONFIGS)
def test_in_parts_a_model_has_the_sums_and_gradients_of_whole_logits(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_loss, "CPU_CHUNK_ROWS", 5)
    student, teacher = converted_model(family, activation="none"), tiny_model(family, seed=1)
    round_floats(student)
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    piece = {"input_ids": token_ids(), "labels": token_ids()}
    piece["labels"][0, 2:5] = -100
    found = []
    for heads in (Heads.of(student.train(), teacher), NO_HEADS):
        student.zero_grad()
        with torch.no_grad():
            told = forward(teacher, piece, LOSS, heads.teacher)
        sums = token_sums(forward(student, piece, LOSS, heads.student), told, piece, LOSS, 0.1, heads=heads)
        total_loss(sums, LOSS, 0.1, BALANCE).backward()
        grads = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
        found.append(
            (
                sums.plain,
                grads,
                held_out_sums(forward(student, piece, LOSS, heads.student), told, piece["labels"], heads),
            )
        )
    # two orders of sums of at most 100 terms a layer, over two layers there and back; 1-bit weights, no codes of inputs
    # that could flip: 2^-24 * 400 of the norm, ten times that for what cancels
    assert float((found[0][1] - found[1][1]).norm() / found[1][1].norm()) < 4000 * 2**-24
    torch.testing.assert_close(found[0][0], found[1][0], rtol=4000 * 2**-24, atol=0)
    assert found[0][2] == pytest.approx(found[1][2], rel=4000 * 2**-24)
    assert found[0][2] == pytest.approx((float(found[0][0][2]), float(found[0][0][0])), rel=4000 * 2**-24)
