"""Attention over keys and values of int8: every kernel has the bits of the oracle, and the oracle is attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bitnet_train.kernels import float_ops
from bitnet_train.kernels.isa import core, forced_isa
from bitnet_train.kernels.reference_attention import int8_attention
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import ActivationScheme
from tests.kernels.test_float_ops import U, attention_and_bound, random, within

# Heads, kv heads, width, tokens, keys, first key, window: rows, lanes and pages that are full and that are not.
SHAPES = [
    (1, 1, 1, 1, 1, 0, 0),
    (1, 1, 2, 1, 1, 0, 0),
    (4, 2, 24, 5, 5, 0, 0),
    (9, 3, 64, 1, 255, 0, 0),
    (9, 3, 64, 1, 256, 0, 0),
    (9, 3, 64, 1, 257, 0, 0),
    (9, 3, 64, 130, 300, 0, 0),
    (4, 1, 33, 100, 700, 0, 0),
    (6, 2, 40, 300, 300, 0, 270),
    (6, 2, 32, 3, 272, 900, 270),
    (4, 4, 16, 30, 30, 0, 1),
    (5, 1, 6, 20, 515, 250, 400),
    (8, 1, 130, 4, 530, 0, 17),
    (2, 1, 512, 2, 40, 0, 0),
]
ISAS = core.int8_attention_isas() if core else []
over_shapes = pytest.mark.parametrize(("heads", "kv_heads", "width", "tokens", "keys", "first_key", "window"), SHAPES)
Codes = tuple[Tensor, Tensor]


def codes_of(x: Tensor) -> Codes:
    """What the cache keeps of float32 [G, S, D]: int8 of the same shape and scales [G, S]."""
    codes, scale = quantize_activation(x, ActivationScheme("int8"))
    return codes.to(torch.int8), scale.reshape(x.shape[:-1])


def assert_every_kernel_equals_the_oracle(
    q: Tensor, k: Tensor, v: Tensor, first_key: int = 0, window: int = 0, scale: float | None = None
) -> Tensor:
    seen = {"scale": scale, "first_key": first_key, "window": window}
    expected = int8_attention(q, codes_of(k), codes_of(v), **seen)
    for isa in ISAS:
        with forced_isa(isa):
            actual = float_ops.attention(q, k, v, **seen, cache_dtype="int8")
        assert torch.equal(actual.nan_to_num(12345.0), expected.nan_to_num(12345.0)), isa
    return expected


def test_there_is_more_than_one_kernel_to_compare():
    assert ISAS[-1] == "portable"
    assert len(ISAS) > 1


def test_a_scale_of_the_model_s_own_is_taken_as_float32_has_it():
    q, k, v = random(3, 4, 24, scale=2.0), *(random(2, 300, 24, seed=s) for s in (1, 2))
    scaled = assert_every_kernel_equals_the_oracle(q, k, v, scale=0.0833)
    assert not torch.equal(scaled, assert_every_kernel_equals_the_oracle(q, k, v))


def test_a_soft_cap_holds_over_codes_as_over_floats():
    q, k, v = random(3, 4, 32, scale=4.0), *(random(2, 300, 32, seed=s) for s in (1, 2))
    k, v = ((codes * scale[..., None]).float() for codes, scale in map(codes_of, (k, v)))  # what the cache can hold
    capped = float_ops.attention(q, k, v, soft_cap=1.5)
    over_codes = float_ops.attention(q, k, v, soft_cap=1.5, cache_dtype="int8")
    # Queries and weights have 15 bits: an error of 2^-15 of the largest score, and as much of a weight.
    bound = 4 * 2**-15 * float(q.norm(dim=-1).max() * k.norm(dim=-1).max() / 32**0.5)
    assert (over_codes - capped).abs().max() < bound * v.abs().max()
    assert (capped - float_ops.attention(q, k, v)).abs().max() > 10 * bound


@over_shapes
def test_every_kernel_equals_the_oracle_bit_for_bit(heads, kv_heads, width, tokens, keys, first_key, window):
    q, k, v = random(tokens, heads, width, scale=2.0), *(random(kv_heads, keys, width, seed=s) for s in (1, 2))
    assert_every_kernel_equals_the_oracle(q, k, v, first_key, window)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_sums_there_can_be_are_exact(sign):
    # All codes 127 and all numbers 32512: 512 dimensions in a score, 256 positions of one weight in a page.
    q, k, v = torch.full((1, 1, 512), sign), torch.ones(1, 256, 512), torch.full((1, 256, 512), sign)
    y = assert_every_kernel_equals_the_oracle(q, k, v)
    assert within(y, torch.full_like(y, sign).double(), 4 * U)


def test_scores_far_apart_and_values_of_very_different_size_are_those_of_the_oracle():
    q, k = random(40, 4, 32, scale=30.0), random(2, 600, 32, seed=1, scale=10.0)
    v = random(2, 600, 32, seed=2) * 10.0 ** random(2, 600, 1, seed=3, scale=6.0)
    y = assert_every_kernel_equals_the_oracle(q, k, v)
    assert torch.isfinite(y).all()
    assert_every_kernel_equals_the_oracle(torch.zeros_like(q), k, torch.zeros_like(v))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_a_number_that_is_not_finite_reaches_whoever_sees_it_and_nobody_else(value, where):
    q, k, v = random(300, 2, 16), random(1, 300, 16, seed=1), random(1, 300, 16, seed=2)
    whole = float_ops.attention(q, k, v, cache_dtype="int8")
    spoiled = {"q": q[140, 0], "k": k[0, 140], "v": v[0, 140]}[where]
    spoiled[3] = value
    for isa in ISAS:
        with forced_isa(isa):
            y = float_ops.attention(q, k, v, cache_dtype="int8")
        assert torch.equal(y[:140], whole[:140]), isa
        seen = y[140, 0] if where == "q" else y[140:]
        assert torch.isnan(seen).all(), isa


@over_shapes
def test_the_oracle_is_attention_over_the_numbers_of_the_codes(heads, kv_heads, width, tokens, keys, first_key, window):
    q, k, v = random(tokens, heads, width, scale=2.0), *(random(kv_heads, keys, width, seed=s) for s in (1, 2))
    near = [codes.double() * scale.double().unsqueeze(-1) for codes, scale in (codes_of(k), codes_of(v))]
    expected, allowed = attention_and_bound(q, near[0], near[1], first_key, window)
    # Beside the roundings of float attention: a query is off by half a step of max|q| / 32512 in each dimension, so a
    # score by `step`, and a weight by a share of as much, in the numerator and in the denominator. A product of weight
    # and value scale is off by half a step of the largest of its page, so each page by 256 half steps of what it may
    # say at most. The four roundings of the two scales, and what exp errs beyond that of float, come to less than 32 u.
    largest = near[1].abs().max()
    step = q.abs().amax() / 32512 / 2 * near[0].abs().sum(-1).max() * width**-0.5
    score = q.abs().sum(-1).max() * near[0].abs().max() * width**-0.5
    weights = min(keys, 256) / 32512 / 2
    allowed = allowed + (2.5 * step + weights + 4 * U * score + 32 * U) * largest
    actual = int8_attention(q, codes_of(k), codes_of(v), first_key=first_key, window=window)
    assert within(actual, expected, allowed)
    assert allowed.max() < 0.02 * largest


def test_the_numbers_of_weights_and_queries_cost_far_less_than_codes_of_keys_and_values():
    q, k, v = random(64, 4, 64, scale=2.0), random(2, 2000, 64, seed=1), random(2, 2000, 64, seed=2)
    near = [(codes.double() * scale.double().unsqueeze(-1)) for codes, scale in (codes_of(k), codes_of(v))]
    actual = int8_attention(q, codes_of(k), codes_of(v)).double()
    seen = torch.ones(64, 2000, dtype=torch.bool).tril(2000 - 64)

    def attended(keys: Tensor, values: Tensor) -> Tensor:
        grouped = (x.repeat_interleave(2, 0) for x in (keys, values))
        return F.scaled_dot_product_attention(q.double().transpose(0, 1), *grouped, attn_mask=seen).transpose(0, 1)

    of_codes = (attended(*near) - attended(k.double(), v.double())).square().mean()
    of_numbers = (actual - attended(*near)).square().mean()
    assert of_numbers < of_codes / 1000


def test_pieces_and_threads_change_no_bit():
    q, k, v = random(500, 4, 24), random(2, 500, 24, seed=1), random(2, 500, 24, seed=2)
    before = torch.get_num_threads()
    try:
        whole = []
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            whole.append(float_ops.attention(q, k, v, window=270, cache_dtype="int8"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*whole)
    for first, last in ((0, 1), (0, 65), (200, 300), (499, 500)):
        start = max(0, first + 1 - 270)
        part = float_ops.attention(
            q[first:last], k[:, start:last], v[:, start:last], first_key=start, window=270, cache_dtype="int8"
        )
        assert torch.equal(part, whole[0][first:last])
