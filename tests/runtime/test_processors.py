"""What may be drawn, and how likely: the native sampler, transformers' processors, and both written out with loops."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.kernels import _core
from bitnet_train.runtime.generate import generate
from bitnet_train.runtime.generation import Sampling
from bitnet_train.runtime.load import load, load_tokenizer
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.runtime.native.sampler import new_sampler
from bitnet_train.runtime.processors import processors

VOCAB = 300
PROMPT, NEW = [3, 7, 7, 290], [7, 11, 11, 11, 5]
BIAS = {11: 1.5, 20: -40.0, 299: 0.25}
HOWS: list[dict[str, Any]] = [
    {},
    {"logit_bias": BIAS},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7, "logit_bias": BIAS},
    {"frequency_penalty": 0.37},
    {"presence_penalty": -1.1},
    {"repetition_penalty": 1.7, "frequency_penalty": 0.4, "presence_penalty": 0.9, "logit_bias": BIAS},
    {"top_k": 20},
    {"typical_p": 0.6},
    {"typical_p": 0.05},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"top_k": 50, "typical_p": 0.8, "top_p": 0.9, "min_p": 0.1},
    {"top_k": 80, "typical_p": 0.5, "repetition_penalty": 1.2, "frequency_penalty": 1.0, "temperature": 2.0},
]


def logits_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2.5, VOCAB).astype(np.float32)


def penalised(logits: np.ndarray, how: Sampling, prompt: Sequence[int], new: Sequence[int]) -> list[np.float32]:
    """Bias and penalties, an operation of float32 at a time."""
    single = np.float32
    shaped = [single(x) for x in logits]
    for token, bias in how.logit_bias.items():
        shaped[token] = shaped[token] + single(bias)
    for token in sorted({*prompt, *new}):
        x, penalty = shaped[token], single(how.repetition_penalty)
        x = x / penalty if x > 0 else x * penalty
        if token in new:
            x = x - single(how.frequency_penalty) * single(list(new).count(token))
            x = x - single(how.presence_penalty)
        shaped[token] = x
    return shaped


def expected_shares(shaped: Sequence[Any], how: Sampling) -> Mapping[int, float]:
    """Return the probability of each token that may be drawn."""
    largest = max(float(x) for x in shaped)
    weights = {token: math.exp((float(x) - largest) / how.temperature) for token, x in enumerate(shaped)}
    by_weight = sorted(weights, key=lambda token: (-weights[token], token))
    kept = by_weight[: how.top_k] if how.top_k else by_weight
    kept = first_with_share(by_typicality(kept, weights), weights, how.typical_p)
    kept = sorted(kept, key=lambda token: (-weights[token], token))
    most = weights[kept[0]]
    kept = first_with_share(kept, weights, how.top_p)
    kept = [token for token in kept if weights[token] >= how.min_p * most]
    total = sum(weights[token] for token in kept)
    return {token: weights[token] / total for token in kept}


def by_typicality(kept: Sequence[int], weights: Mapping[int, float]) -> list[int]:
    total = sum(weights[token] for token in kept)
    surprise = {token: -math.log(weights[token] / total) for token in kept}
    mean = sum(weights[token] / total * surprise[token] for token in kept)
    return sorted(kept, key=lambda token: (abs(surprise[token] - mean), -weights[token], token))


def first_with_share(ordered: Sequence[int], weights: Mapping[int, float], share: float) -> list[int]:
    if share == 1:
        return list(ordered)
    total, running, kept = sum(weights[token] for token in ordered), 0.0, []
    for token in ordered:
        if kept and running >= share * total:
            break
        kept.append(token)
        running += weights[token]
    return kept


def native_shares(how: Sampling, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what may be drawn after `NEW` was drawn, each of its tokens by logits that leave no other."""
    sampler: Any = new_sampler(how, PROMPT)
    for token in NEW:
        only = np.full(VOCAB, -1e30, np.float32)
        only[token] = 1e30
        assert sampler.draw(only) == token
    return sampler.shares(logits)


@pytest.mark.parametrize("how", HOWS, ids=lambda how: ",".join(how) or "plain")
def test_natively_it_is_what_loops_say(how: dict[str, Any]) -> None:
    sampling = Sampling(**{"temperature": 0.8, **how})
    for seed in range(4):
        ids, shares = native_shares(sampling, logits_of(seed))
        expected = expected_shares(penalised(logits_of(seed), sampling, PROMPT, NEW), sampling)
        assert dict.fromkeys(ids.tolist()) == dict.fromkeys(expected), "the same tokens"
        assert ids.tolist() == sorted(expected, key=lambda token: (-expected[token], token)), "in order"
        # float64: an exponential of one unit in the last place each, and a sum of 300 of them
        assert shares == pytest.approx([expected[token] for token in ids.tolist()], rel=300 * 2**-52, abs=0)


@pytest.mark.parametrize("how", HOWS, ids=lambda how: ",".join(how) or "plain")
def test_by_torch_the_same_tokens_stay_and_penalties_are_the_same_floats(how: dict[str, Any]) -> None:
    sampling = Sampling(**{"temperature": 0.8, **how})
    greedy = Sampling(**{**how, "temperature": 0.0})
    ids = torch.tensor([PROMPT + NEW])
    for seed in range(4):
        logits = logits_of(seed)
        shaped = processors(greedy, len(PROMPT))(ids, torch.from_numpy(logits)[None].clone())[0].numpy()
        assert shaped.tolist() == [float(x) for x in penalised(logits, sampling, PROMPT, NEW)]
        plain = Sampling(**{"temperature": 0.8, **how, **NO_PENALTIES})
        through_native = native_shares(plain, np.ascontiguousarray(shaped))
        assert all((a == b).all() for a, b in zip(through_native, native_shares(sampling, logits), strict=True))
        left = processors(sampling, len(PROMPT))(ids, torch.from_numpy(logits)[None].clone())[0]
        assert torch.isfinite(left).nonzero().ravel().tolist() == sorted(native_shares(sampling, logits)[0].tolist())


NO_PENALTIES: dict[str, Any] = {
    **{"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "logit_bias": {}}
}


def test_draws_come_as_often_as_the_shares_say() -> None:
    sampling = Sampling(temperature=1.0, top_k=6, typical_p=0.8)
    sampler: Any = new_sampler(sampling, PROMPT)
    ids, shares = sampler.shares(logits_of(1))
    assert 1 < len(ids) < 6
    drawn = [sampler.draw(logits_of(1)) for _ in range(2000)]
    for token, share in zip(ids.tolist(), shares.tolist(), strict=True):
        assert abs(drawn.count(token) / 2000 - share) < 5 * (share * (1 - share) / 2000) ** 0.5


def test_greedy_takes_the_likeliest_after_penalties() -> None:
    logits = logits_of(0)
    best = int(logits.argmax())
    assert new_sampler(Sampling(), []).shares(logits)[0].tolist() == [best]
    assert new_sampler(Sampling(logit_bias={best: -100.0}), []).draw(logits) != best
    flat = np.zeros(5, np.float32)
    once, each_time = (new_sampler(Sampling(**{f"{kind}_penalty": 2.0}), []) for kind in ("presence", "frequency"))
    assert [once.draw(flat) for _ in range(7)] == [0, 1, 2, 3, 4, 0, 0]
    assert [each_time.draw(flat) for _ in range(7)] == [0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize(
    "how",
    [
        {"repetition_penalty": 1.5},
        {"frequency_penalty": 2.0, "presence_penalty": 1.0},
        {"logit_bias": {97: 100.0, 98: 99.5}, "presence_penalty": 2.0},
    ],
    ids=lambda how: ",".join(how),
)
def test_both_engines_write_the_same_greedy_text(how: dict[str, Any], exported: Any) -> None:
    native = NativeModel.load(exported)
    model, tokenizer = load(exported), load_tokenizer(exported)
    by_torch = generate(model, tokenizer, "def f(x):", max_new_tokens=24, **how).token_ids
    assert native.generate("def f(x):", max_new_tokens=24, **how).token_ids == by_torch
    plain = native.generate("def f(x):", max_new_tokens=24).token_ids
    assert plain != by_torch
    # The second time its beginning is remembered; several prompts are continued one after another.
    assert native.generate(["def f(x):", "a"], max_new_tokens=24, **how)[0].token_ids == by_torch


def test_a_bias_of_an_unknown_token_is_refused_by_both(exported: Any) -> None:
    native = NativeModel.load(exported)
    with pytest.raises(DataError, match="`logit_bias` names token id 99999"):
        native.generate("a", logit_bias={99999: 1.0})
    with pytest.raises(DataError, match="`logit_bias` names token id 99999"):
        native.generate_ids([1], 2, logit_bias={99999: 1.0})
    with pytest.raises(DataError, match="`logit_bias` names token id 99999"):
        generate(load(exported), load_tokenizer(exported), "a", logit_bias={99999: 1.0})
    with pytest.raises(ValueError, match="`logit_bias` names token 500, but there are 300"):
        _core.Sampler(logit_bias={500: 1.0}).draw(logits_of(0))
    with pytest.raises(ValueError, match="`logit_bias` names token -1"):
        _core.Sampler(logit_bias={-1: 1.0})
    for name in ("repetition_penalty", "frequency_penalty", "presence_penalty"):
        with pytest.raises(ValueError, match=f"`{name}` is"):
            _core.Sampler(**{name: math.inf})


def test_a_configuration_says_them_all_and_a_bias_by_token_ids() -> None:
    from bitnet_train.config.compose import compose

    words = [
        "model.source=tiny",
        *("generate.temperature=0.5", "generate.typical_p=0.9", "generate.repetition_penalty=1.1"),
        *("generate.frequency_penalty=0.5", "generate.presence_penalty=-0.5", "generate.logit_bias={50: -100, 7: 1.5}"),
    ]
    chosen = compose(overrides=words).config.generate
    assert (chosen.typical_p, chosen.repetition_penalty) == (0.9, 1.1)
    assert (chosen.frequency_penalty, chosen.presence_penalty) == (0.5, -0.5)
    assert chosen.logit_bias == {50: -100.0, 7: 1.5}
    with pytest.raises(ConfigError, match=r"generate\.logit_bias"):
        compose(overrides=["model.source=tiny", "generate.logit_bias={50: 101}"])
