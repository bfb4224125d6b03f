"""The samplers of an engine: rows drawn side by side are those that each sampler draws alone."""

from __future__ import annotations

import numpy as np
import pytest

from bitnet_train.kernels import _core

LOGITS = np.random.default_rng(1).normal(0, 3, (5, 700)).astype(np.float32)
HOWS = [(0.0, 0, 1.0, 0.0), (0.7, 0, 1.0, 0.0), (1.0, 40, 1.0, 0.0), (1.3, 0, 0.9, 0.0), (1.0, 50, 0.95, 0.05)]


def test_rows_are_drawn_as_each_sampler_draws_alone() -> None:
    together = [_core.Sampler(*how, seed=at) for at, how in enumerate(HOWS)]
    alone = [_core.Sampler(*how, seed=at) for at, how in enumerate(HOWS)]
    for _ in range(50):
        drawn = _core.draw_rows(together, LOGITS)
        assert drawn.dtype == np.int32
        assert drawn.tolist() == [sampler.draw(row) for sampler, row in zip(alone, LOGITS, strict=True)]


def test_a_sampler_is_greedy_at_zero_and_its_seed_decides_elsewhere() -> None:
    assert _core.Sampler().draw(LOGITS[0]) == LOGITS[0].argmax()
    texts = [[_core.Sampler(1.0, seed=seed).draw(row) for row in LOGITS] for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_top_k_keeps_the_likeliest() -> None:
    sampler = _core.Sampler(5.0, 3, seed=4)
    assert {sampler.draw(LOGITS[0]) for _ in range(200)} == set(np.argsort(-LOGITS[0])[:3].tolist())


@pytest.mark.parametrize(
    "how", [{"temperature": -1.0}, {"top_p": 0.0}, {"min_p": 2.0}, {"top_k": -1}, {"typical_p": 0.0}]
)
def test_a_setting_that_is_impossible_is_refused(how: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(how))):
        _core.Sampler(**how)


def test_rows_and_samplers_of_different_number_and_no_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="2 samplers for logits of shape"):
        _core.draw_rows([_core.Sampler(), _core.Sampler()], LOGITS)
    with pytest.raises(ValueError, match="is empty"):
        _core.Sampler().draw(LOGITS[0][:0])
    with pytest.raises(ValueError, match="a sampler is None"):
        _core.draw_rows([None] * 5, LOGITS)
