from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bitnet_train.errors import KernelError
from bitnet_train.kernels import reference_int8
from bitnet_train.kernels.int8_ops import int8_linear, int8_rows, pack_int8, unpack_int8
from bitnet_train.kernels.isa import available_isas, forced_isa

# rows that do and do not fill a quad, inputs that do and do not fill a block; beyond 4096 an int32 lane is emptied
SHAPES = [(1, 1), (3, 5), (4, 64), (5, 65), (7, 63), (258, 64), (33, 576), (16, 4096), (5, 4097), (2, 20001)]


def problem(num_tokens: int, num_rows: int, num_inputs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_tokens, num_inputs, generator=generator)
    codes = torch.randint(-128, 128, (num_rows, num_inputs), dtype=torch.int8, generator=generator)
    return x, codes, torch.rand(num_rows, generator=generator).half().float()


@pytest.fixture(params=available_isas())
def isa(request):
    with forced_isa(request.param):
        yield request.param


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_tokens", [1, 2, 65])
def test_every_kernel_equals_the_oracle_bit_for_bit(shape, num_tokens):
    x, codes, scale = problem(num_tokens, *shape)
    expected = reference_int8.int8_linear(x, codes, scale)
    for name in available_isas():
        with forced_isa(name):
            assert torch.equal(int8_linear(x, pack_int8(codes), scale, None), expected), name


@pytest.mark.parametrize("code", [-128, 127])
@pytest.mark.parametrize("value", [1.0, -1.0])
@pytest.mark.parametrize("num_inputs", [4096, 4160, 20001])
def test_the_largest_sum_there_can_be_is_exact(isa, code, value, num_inputs):
    x, codes = torch.full((1, num_inputs), value), torch.full((5, num_inputs), code, dtype=torch.int8)
    y = int8_linear(x, pack_int8(codes), torch.ones(5), None)
    _, x_scale = reference_int8.quantize_int16(x)
    exact = torch.tensor(32767.0 * num_inputs * value * code, dtype=torch.float64) * x_scale.double()
    assert torch.equal(y, exact.float().expand(1, 5))


def test_the_oracle_is_the_exact_integer_sum():
    x, codes, scale = problem(3, 6, 200)
    x_codes, x_scale = reference_int8.quantize_int16(x)
    sums = (x_codes.long().unsqueeze(1) * codes.long()).sum(-1)
    y = sums.double() * (scale.double() * x_scale.double())
    assert torch.equal(reference_int8.int8_linear(x, codes, scale), y.float())


def test_the_oracle_gives_the_same_bits_in_any_number_of_chunks(monkeypatch):
    x, codes, scale = problem(3, 50, 70)
    whole = reference_int8.int8_linear(x, codes, scale)
    monkeypatch.setattr(reference_int8, "_CHUNK_WEIGHTS", 200)
    assert torch.equal(reference_int8.int8_linear(x, codes, scale), whole)


def test_a_float_product_is_near():
    x, codes, scale = problem(4, 30, 576)
    exact = x.double() @ (codes.double() * scale.double().unsqueeze(1)).T
    error = (int8_linear(x, pack_int8(codes), scale, None) - exact).abs()
    steps = x.abs().amax(-1, keepdim=True).double() / 32767
    assert torch.all(error <= steps / 2 * codes.double().abs().sum(1) * scale.double() * 1.01)


def test_tokens_that_are_zero_tiny_huge_or_not_finite_give_what_the_oracle_gives(isa):
    x, codes, scale = problem(6, 9, 100)
    x[0], x[1], x[2] = 0, 1e-30, 3e38
    x[3, 50], x[4, 99] = float("nan"), -float("inf")
    y, expected = (f(x, c, scale) for f, c in ((run, pack_int8(codes)), (reference_int8.int8_linear, codes)))
    assert torch.equal(torch.isnan(y), torch.isnan(expected))
    assert torch.equal(torch.nan_to_num(y), torch.nan_to_num(expected))
    assert torch.isnan(y[3:5]).all()
    assert torch.isfinite(y[[0, 1, 5]]).all()


def run(x: Tensor, stream: Tensor, scale: Tensor) -> Tensor:
    return int8_linear(x, stream, scale, None)


def test_a_bias_is_added_in_float32(isa):
    x, codes, scale = problem(3, 10, 64)
    bias = torch.randn(10, generator=torch.Generator().manual_seed(1))
    without = reference_int8.int8_linear(x, codes, scale)
    assert torch.equal(int8_linear(x, pack_int8(codes), scale, bias), without + bias)
    assert torch.equal(reference_int8.int8_linear(x, codes, scale, bias), without + bias)


def test_the_number_of_threads_does_not_show(isa):
    x, codes, scale = problem(3, 1030, 640)
    before = torch.get_num_threads()
    results = []
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            results.append(run(x, pack_int8(codes), scale))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stream_unpacks_to_its_codes_and_its_padding_is_zero(shape):
    _, codes, _ = problem(1, *shape)
    stream = pack_int8(codes)
    assert torch.equal(unpack_int8(stream, *shape), codes)
    assert int(stream.long().abs().sum()) == int(codes.long().abs().sum())
    assert stream.shape == (-(-shape[0] // 4), -(-shape[1] // 64), 4, 64)


def test_rows_are_looked_up_in_the_stream_of_the_head():
    _, codes, scale = problem(1, 21, 70)
    ids = torch.tensor([20, 0, 7, 7, 3, 16])
    rows = int8_rows(ids, pack_int8(codes), scale, 70)
    assert torch.equal(rows, codes[ids].float() * scale[ids].unsqueeze(1))


@pytest.mark.parametrize("token_id", [21, 22, 23, 24, -1, -22])
def test_a_token_id_beyond_the_table_is_refused_even_where_padding_lies(token_id):
    _, codes, scale = problem(1, 21, 70)
    with pytest.raises(IndexError):
        int8_rows(torch.tensor([token_id]), pack_int8(codes), scale, 70)


def test_no_tokens_give_no_rows(isa):
    _, codes, scale = problem(1, 5, 70)
    assert run(torch.empty(0, 70), pack_int8(codes), scale).shape == (0, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, w, s: (x.double(), w, s, None), "`x` must be contiguous float32"),
        (lambda x, w, s: (x[0], w, s, None), "`x` must be contiguous float32"),
        (lambda x, w, s: (x[:, ::2], w, s, None), "`x` must be contiguous float32"),
        (lambda x, w, s: (x[:, :0], w, s, None), "`x` must be contiguous float32"),
        (lambda x, w, s: (x[:, :64].contiguous(), w, s, None), r"contiguous int8 \[2, 1, 4, 64\]"),
        (lambda x, w, s: (x, w.float(), s, None), r"Make it with `pack_int8`"),
        (lambda x, w, s: (x, w[:1], s, None), r"contiguous int8 \[2, 2, 4, 64\]"),
        (lambda x, w, s: (x, w.transpose(0, 1), s, None), r"contiguous int8 \[2, 2, 4, 64\]"),
        (lambda x, w, s: (x, w, s.unsqueeze(1), None), "`scale` must be float32"),
        (lambda x, w, s: (x, w, s.half(), None), "`scale` must be contiguous float32"),
        (lambda x, w, s: (x, w, s.repeat(2)[::2], None), "`scale` must be contiguous float32"),
        (lambda x, w, s: (x, w, s, s[:3]), "`bias` must be contiguous float32"),
        (lambda x, w, s: (x, w, s, s.double()), "`bias` must be contiguous float32"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(isa, change, message):
    x, codes, scale = problem(2, 7, 70)
    with pytest.raises(KernelError, match=message):
        int8_linear(*change(x, pack_int8(codes), scale))


@pytest.mark.parametrize("codes", [torch.zeros(2, 3), torch.zeros(4, dtype=torch.int8), torch.zeros(0, 3).char()])
def test_only_whole_tables_of_codes_are_packed(codes):
    with pytest.raises(KernelError, match=r"needs codes int8 \[rows, inputs\]"):
        pack_int8(codes)


def test_codes_at_an_odd_address_give_the_same_bits(isa):
    x, codes, scale = problem(2, 8, 128)
    stream = pack_int8(codes)
    odd = torch.empty(stream.numel() + 1, dtype=torch.int8)[1:].view(stream.shape).copy_(stream)
    assert odd.data_ptr() % 2
    assert torch.equal(run(x, odd, scale), run(x, stream, scale))


@pytest.mark.slow
def test_the_operator_keeps_the_rules_of_torch():
    x, codes, scale = problem(2, 7, 70)
    torch.library.opcheck(torch.ops.bitnet_train.int8_linear, (x, pack_int8(codes), scale, None))
