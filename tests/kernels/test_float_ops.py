"""The runtime's float operations against torch's own in float64, whose roundings (2^-53) do not count beside u = 2^-24.

The bounds are those of the usual model of rounding: each operation returns its result times 1 + d, |d| <= u, in the
first order of u; a sum of K products, in any order, fused or not, errs by K u times the sum of their magnitudes. `exp`
is a polynomial of degree 6 behind an argument reduction: 2 units in the last place, so 4 u.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from bitnet_train.errors import KernelError
from bitnet_train.kernels import float_ops
from bitnet_train.kernels.isa import core, forced_isa

U = 2.0**-24
EXP = 4 * U
ISAS = core.float_isas() if core else []
every_isa = pytest.mark.parametrize("isa", ISAS)


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def within(actual, expected, allowed):
    error = (actual.double() - expected).abs()
    assert torch.isfinite(actual).all()
    return bool((error <= allowed).all())


@every_isa
@pytest.mark.parametrize("width", [1, 7, 64, 576, 1003])
def test_a_norm_is_torchs_within_five_roundings(isa, width):
    # The mean (a float64 sum) and eps are rounded, and their sum: 2 u, halved by the root. Then root, division and two
    # products, u each.
    x, weight = random(9, width, scale=3.0), random(width, seed=1)
    expected = F.rms_norm(x.double(), (width,), weight.double(), 1e-5)
    assert within(float_ops.norm(x, weight, 1e-5, isa), expected, 5.01 * U * expected.abs())


@every_isa
def test_silu_is_torchs_within_an_exponential_and_two_roundings(isa):
    # x / (1 + e): the sum and the division round, and of the error of e at most all reaches the sum. Where exp(-x) is
    # above the largest float, x < -88.7, the result is 0, and that is off by |x| exp(x) < 89 * 2^-128.
    x = torch.cat([random(1000, scale=8.0), torch.linspace(-200, 200, 4001), torch.tensor([0.0, -0.0, 1e30, -1e30])])
    expected = F.silu(x.double())
    assert within(float_ops.silu(x, isa), expected, (EXP + 2.01 * U) * expected.abs() + 89 * 2.0**-128)


@every_isa
def test_gelu_is_its_tanh_form_within_the_roundings_of_its_exponent(isa):
    # x * sigmoid(z), z = 2 sqrt(2 / pi) (x + 0.044715 x^3), is the tanh form without its cancellation. Both constants,
    # the square, two products, the sum and the product with x round: z is off by at most 5 u |z| (the square and a
    # product reach only one of two terms of one sign), so exp(-z) by that and its own error, of which all reaches the
    # sum. Where exp(-z) is above the largest float the result is 0, off by less than |x| exp(z) < 11 * 2^-128.
    x = torch.cat([random(1000, scale=3.0), torch.linspace(-30, 30, 4001), torch.tensor([0.0, -0.0, 1e30, -1e30])])
    z = 2 * math.sqrt(2 / math.pi) * (x.double() + 0.044715 * x.double() ** 3)
    expected = x.double() * torch.sigmoid(z)
    allowed = (EXP + (2 + 5 * z.abs().clamp(max=90)) * U * 1.01) * expected.abs() + 11 * 2.0**-128
    assert within(float_ops.gelu_tanh(x, isa), expected, allowed)
    near = F.gelu(x[:1000].double(), approximate="tanh")
    assert torch.allclose(expected[:1000], near, rtol=1e-12, atol=1e-14), "the same function"


@every_isa
def test_tanh_is_torchs_within_four_roundings(isa):
    # From 5/8: 1 - q, q = 2 / (exp(2x) + 1) <= 0.45 and 1 - q >= 0.55. The sum, the division and the exponential put
    # (2 + 4 * 0.78) u on q, where 0.78 is the largest share of exp(2x) in the sum that matters; 5.2 * 0.45 / 0.55 u
    # and u of the difference. Below: the polynomial is off by less than 2 u of x (its authors measured 1.3e-7), and
    # adds u.
    x = torch.cat([random(4000), torch.linspace(-12, 12, 9001), torch.tensor([0.0, -0.0, 0.625, 0.62499994, 1e30])])
    x = torch.cat([x, -x, torch.tensor([torch.inf, -torch.inf]), 1e-30 * random(50)])
    expected = torch.tanh(x.double())
    assert within(float_ops.tanh(x, isa), expected, 6 * U * expected.abs())
    assert torch.isnan(float_ops.tanh(torch.full((19,), torch.nan), isa)).all()


@pytest.mark.parametrize("scaling", [1.0, 1.1386294, 0.5])
def test_rotary_angles_are_torchs_within_two_roundings(scaling):
    # The angle is one float32 product in both; its cosine is taken in float64 and rounded, times the factor (rounded to
    # float32 as torch rounds a Python number) rounded: 2 u.
    positions = torch.cat([torch.arange(600), torch.tensor([4095, 100_003, (1 << 24) - 1])])
    inv_freq = 1.0 / 10000.0 ** (torch.arange(0, 64, 2).float() / 64)
    angles = (positions[:, None].float() * inv_freq).double()
    factor = float(torch.tensor(scaling, dtype=torch.float32))
    for actual, expected in zip(
        float_ops.rotary(positions, inv_freq, scaling), (angles.cos() * factor, angles.sin() * factor), strict=True
    ):
        assert within(actual, expected, 2.01 * U * expected.abs())


@every_isa
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (64, 5), (67, 33), (576, 130)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_product_is_torchs_within_the_rounding_of_its_sum(isa, inputs, outputs, dtype):
    # K products and the bias: K + 1 roundings of a sum, or of a sum and the products before it.
    x, weight, bias = random(3, inputs), random(outputs, inputs, seed=1).to(dtype), random(outputs, seed=2)
    expected = F.linear(x.double(), weight.double(), bias.double())
    allowed = (inputs + 2) * U * F.linear(x.double().abs(), weight.double().abs(), bias.double().abs())
    assert within(float_ops.linear(x, weight, bias, isa), expected, allowed)


@every_isa
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_weight_gives_the_bits_of_the_same_weight_widened(isa, dtype):
    x, weight = random(4, 131), random(37, 131, seed=1).to(dtype)
    assert torch.equal(float_ops.linear(x, weight, None, isa), float_ops.linear(x, weight.float(), None, isa))


def attention_and_bound(q, k, v, first_key, window, scale=None, cap=0.0):
    """torch's attention in float64 [T, H, D], and what rounding may add to it.

    A score is a sum of D products times a scale that is rounded twice and multiplied once: off by
    eta = (D + 3) u * scale * sum|q||k|. A cap makes no difference larger (its slope is at most 1) and adds its own
    error, that of tanh, 6 u, and a division and a product: 8 u of the score. Subtracting the maximum rounds by u * (the
    largest distance to it), exp by 4 u, so each weight is off by a share of r = eta + u * distance + 4 u, in the
    numerator and in the denominator: 2 r. Both are sums of S terms, 2 S u; each of the pages multiplies both by a
    factor that is off as a weight is, and adds: 2 pages (r + 2 u); the division and the product after it 2 u. All of it
    times sum p |v|.
    """
    tokens, heads, width = q.shape
    scale = scale or width**-0.5
    keys, group = k.shape[1], heads // k.shape[0]
    k, v = (tensor.double().repeat_interleave(group, 0) for tensor in (k, v))
    q = q.double().transpose(0, 1)
    at = torch.arange(keys)[None] + first_key
    row = torch.arange(keys - tokens, keys)[:, None] + first_key
    seen = (at <= row) & ((at > row - window) if window else True)
    scores = q @ k.transpose(1, 2) * scale
    scores = (cap * torch.tanh(scores / cap) if cap else scores).masked_fill(~seen, -torch.inf)
    expected = scores.softmax(-1) @ v
    magnitude = (q.abs() @ k.abs().transpose(1, 2) * scale).masked_fill(~seen, 0.0)
    distance = scores.max(-1).values - scores.masked_fill(~seen, torch.inf).min(-1).values
    r = (width + 3 + (8 if cap else 0)) * U * magnitude.max(-1).values + U * distance + EXP
    pages = keys / 256 + 2
    share = 2 * r + 2 * keys * U + 2 * pages * (r + 2 * U) + 2 * U
    allowed = share[..., None] * (scores.softmax(-1) @ v.abs())
    return expected.transpose(0, 1), allowed.transpose(0, 1)


@every_isa
@pytest.mark.parametrize(
    ("heads", "kv_heads", "width", "tokens", "keys", "first_key", "window"),
    [
        (1, 1, 2, 1, 1, 0, 0),
        (4, 2, 24, 5, 5, 0, 0),
        (9, 3, 64, 1, 300, 0, 0),
        (9, 3, 64, 300, 300, 0, 0),
        (4, 1, 32, 100, 700, 0, 0),
        (4, 4, 16, 30, 30, 0, 8),
        (6, 2, 32, 600, 600, 0, 270),
        (6, 2, 32, 3, 272, 900, 270),
    ],
)
@pytest.mark.parametrize(("scale", "cap"), [(None, 0.0), (0.07, 0.0), (0.1, 1.5)])
def test_attention_is_torchs_within_the_rounding_of_scores_weights_and_sums(
    isa, heads, kv_heads, width, tokens, keys, first_key, window, scale, cap
):
    q, k, v = random(tokens, heads, width, scale=2.0), *(random(kv_heads, keys, width, seed=s) for s in (1, 2))
    expected, allowed = attention_and_bound(q, k, v, first_key, window, scale, cap)
    actual = float_ops.attention(q, k, v, scale=scale, first_key=first_key, window=window, soft_cap=cap, isa=isa)
    assert within(actual, expected, allowed)
    assert allowed.max() < 1e-3 * v.abs().max(), "one key too many of some hundred would move the result by more"


@every_isa
def test_attention_gives_a_token_the_same_bits_whatever_is_asked_beside_it(isa):
    q, k, v = random(500, 4, 24), random(2, 500, 24, seed=1), random(2, 500, 24, seed=2)
    whole = float_ops.attention(q, k, v, window=270, isa=isa)
    for first, last in ((0, 1), (0, 65), (200, 300), (499, 500)):
        start = max(0, first + 1 - 270)
        part = float_ops.attention(
            q[first:last], k[:, start:last], v[:, start:last], first_key=start, window=270, isa=isa
        )
        assert torch.equal(part, whole[first:last])


def test_the_number_of_threads_changes_no_bit():
    q, k, v, weight = random(200, 6, 32), random(3, 200, 32, seed=1), random(3, 200, 32, seed=2), random(99, 192)
    before = torch.get_num_threads()
    results = []
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            results.append((float_ops.attention(q, k, v), float_ops.linear(q.flatten(1), weight, None)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_views_that_are_not_contiguous_are_taken():
    x, weight = random(8, 12), random(12, seed=1)
    assert torch.equal(float_ops.norm(x.T.contiguous().T, weight, 1e-6), float_ops.norm(x, weight, 1e-6))
    q, kv = random(3, 7, 8), random(1, 7, 8, seed=1)
    assert torch.equal(
        float_ops.attention(q.transpose(0, 1), kv, kv), float_ops.attention(q.transpose(0, 1).contiguous(), kv, kv)
    )


Q, KV = random(2, 4, 8), random(2, 5, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: float_ops.norm(random(2, 3), random(4), 1e-6), r"`weight` has 4 values for rows of `x` \[2, 3\]"),
        (lambda: float_ops.norm(random(2, 3).double(), random(3), 1e-6), r"`x` must be torch.float32 on the CPU, not"),
        (lambda: float_ops.linear(random(2, 3), random(4, 5), None), r"`x` is \[2, 3\], but the weight has 5 inputs"),
        (lambda: float_ops.linear(random(2, 3), random(4, 3), random(5)), "has 5 values for 4 rows"),
        (
            lambda: float_ops.linear(random(2, 3), random(4, 3).int(), None),
            r"`weight` must be .*not torch.int32 \[4, 3",
        ),
        (lambda: float_ops.rotary(torch.tensor([3, -1]), random(4), 1.0), "position -1 is not from 0 to 16777215"),
        (lambda: float_ops.attention(Q, KV[:, :, :6].contiguous(), KV), r"`k` \[2, 5, 6\] and `v` \[2, 5, 8\]"),
        (lambda: float_ops.attention(Q[:, :3].contiguous(), KV, KV), "kv_heads divides heads"),
        (lambda: float_ops.attention(random(6, 4, 8), KV, KV), "`q` has 6 tokens, but must have from 1 to the 5"),
        (
            lambda: float_ops.attention(Q, KV, KV, first_key=9),
            "at position 12, sees position 0, but the keys begin at 9",
        ),
        (lambda: float_ops.attention(Q, KV, KV, first_key=-1), "`first_key` is -1, below 0"),
        (lambda: float_ops.attention(Q, KV, KV, window=-2), "`window` is -2, below 0"),
        (lambda: float_ops.attention(Q, KV, KV, scale=-1.0), "`scale` must be a finite number above 0"),
        (lambda: float_ops.attention(Q, KV, KV, soft_cap=float("nan")), "and `soft_cap` one from 0"),
        (lambda: float_ops.attention(Q, KV, KV, isa="sse9"), "no float operations of 'sse9' run on this CPU"),
        (lambda: float_ops.norm(random(2, 3).requires_grad_(), random(3), 1e-6), "`x` needs a gradient"),
        (lambda: float_ops.silu(torch.tensor(1.0)), "`x` must be"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_numbers(call, message):
    with pytest.raises(KernelError, match=message):
        call()


def test_without_the_compiled_extension_the_error_says_what_to_install():
    with forced_isa("reference"), pytest.raises(KernelError, match="need the compiled extension"):
        float_ops.silu(random(3))
