"""The compiled kernels equal the oracle: integers with `==`, floats bit for bit, on every instruction set here."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from bitnet_train.errors import KernelError
from bitnet_train.formats.planes import NUM_PLANES
from bitnet_train.kernels import isa as isa_module
from bitnet_train.kernels import ops, reference
from bitnet_train.quant.scheme import ActivationName, WeightName

WEIGHTS = tuple(NUM_PLANES)
SHAPES = [  # K, group size
    (1, 1), (63, 63), (63, 3), (64, 64), (64, 1), (65, 65), (192, 96), (384, 128), (384, 3),
    (576, 576), (576, 64), (576, 96), (4097, 4097), (4097, 1), (4097, 241),
]  # fmt: skip


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.equal(first.view(torch.int32), second.view(torch.int32))


@pytest.fixture(params=ops.available_isas())
def isa(request):
    with ops.forced_isa(request.param):
        yield request.param


def test_every_scheme_of_the_quantisers_has_a_kernel():
    assert set(get_args(WeightName)) == set(WEIGHTS)
    assert set(get_args(ActivationName)) - {"none"} == set(ops.ACTIVATIONS)


@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize(("num_inputs", "group_size"), SHAPES)
def test_kernel_equals_the_oracle(make_problem, isa, weight, activation, num_inputs, group_size):
    problem = make_problem(weight, activation, 9, 35, num_inputs, group_size)
    expected = reference.grouped_dot(problem.x_codes, problem.w_codes, group_size)
    assert problem.dot().dtype == torch.int32
    assert torch.equal(problem.dot(), expected)
    assert same_bits(problem.linear(), problem.reference_linear())


@pytest.mark.parametrize("num_tokens", range(18))
def test_every_number_of_tokens_gives_the_same_rows(make_problem, isa, num_tokens):
    whole = make_problem("binary", "int8", 17, 33, 576, 64)
    part = replace(whole, x_codes=whole.x_codes[:num_tokens], x_scale=whole.x_scale[:num_tokens])
    assert same_bits(part.linear(), whole.reference_linear()[:num_tokens])


@pytest.mark.parametrize("extreme", [127, -128])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("num_inputs", [1, 63, 576, 4097, 1 << 17])
def test_the_largest_sums_do_not_overflow(make_problem, isa, weight, sign, extreme, num_inputs):
    problem = make_problem(weight, "int8", 1, 2, num_inputs, num_inputs)
    problem.x_codes.fill_(extreme)
    problem.w_codes.fill_(sign)
    assert problem.dot().flatten().tolist() == [extreme * sign * num_inputs] * 2
    assert same_bits(problem.linear(), problem.reference_linear())


def test_a_row_of_two_to_the_23_inputs_is_exact(make_problem, isa):
    num_inputs = 1 << 23
    problem = make_problem("binary", "int8", 1, 1, num_inputs, num_inputs)
    problem.x_codes.fill_(-128)
    problem.w_codes.fill_(1)
    assert problem.dot().item() == -(1 << 30)


@st.composite
def shapes(draw: DrawFn) -> tuple[int, int, int, int]:
    group_size, num_groups = draw(st.integers(1, 300)), draw(st.integers(1, 5))
    return draw(st.integers(1, 20)), draw(st.integers(1, 70)), group_size * num_groups, group_size


@settings(max_examples=40, deadline=None)
@given(shape=shapes(), weight=st.sampled_from(WEIGHTS), activation=st.sampled_from(ops.ACTIVATIONS), data=st.data())
def test_any_shape_equals_the_oracle(make_problem, shape, weight, activation, data):
    problem = make_problem(weight, activation, *shape, seed=data.draw(st.integers(0, 2**31)))
    expected = reference.grouped_dot(problem.x_codes, problem.w_codes, problem.group_size)
    for name in ops.available_isas():
        with ops.forced_isa(name):
            assert torch.equal(problem.dot(), expected), name
            assert same_bits(problem.linear(), problem.reference_linear()), name


def test_one_scale_serves_the_whole_tensor(make_problem, isa):
    problem = make_problem("binary", "int8", 3, 5, 64, 64)
    shared = replace(problem, w_scale=torch.tensor([[0.3]]), bias=None)
    assert same_bits(shared.linear(), shared.reference_linear())
    spelled_out = replace(shared, w_scale=torch.full((5, 1), 0.3))
    assert same_bits(shared.linear(), spelled_out.linear())


@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
def test_the_number_of_threads_does_not_change_a_bit(make_problem, isa, activation):
    problem = make_problem("ternary", activation, 40, 517, 1024, 128)
    before = torch.get_num_threads()
    results = []
    try:
        for num_threads in (1, 2, 5):
            torch.set_num_threads(num_threads)
            results.append(problem.linear())
    finally:
        torch.set_num_threads(before)
    assert all(same_bits(results[0], result) for result in results[1:])


BROKEN = {
    "x_codes as float": ("x_codes", lambda x: x.float()),
    "x_codes one input short": ("x_codes", lambda x: x[:, 1:].contiguous()),
    "x_codes strided": ("x_codes", lambda x: x.T.contiguous().T),
    "x_codes with a batch dimension": ("x_codes", lambda x: x[None]),
    "x_scale without its unit dimension": ("x_scale", lambda x: x[:, 0]),
    "x_scale of another batch": ("x_scale", lambda x: x[1:]),
    "x_scale in double": ("x_scale", lambda x: x.double()),
    "w_scale in half": ("w_scale", lambda x: x.half()),
    "w_scale with a missing row": ("w_scale", lambda x: x[1:]),
    "w_scale in half for the tensor": ("w_scale", lambda x: x[:1, :1].half()),
    "bias too long": ("bias", lambda x: torch.cat([x, x])),
}


@pytest.mark.parametrize("case", BROKEN)
def test_wrong_arrays_are_refused_with_the_numbers(make_problem, isa, case):
    name, damage = BROKEN[case]
    problem = make_problem("binary", "int8", 4, 6, 128, 64)
    broken = damage(getattr(problem, name))
    with pytest.raises(KernelError, match=rf"`{name}` must be .* got {str(broken.dtype)[6:]} ") as error:
        replace(problem, **{name: broken}).linear()
    assert str(list(broken.shape)) in str(error.value)


def test_words_of_another_scheme_are_refused(make_problem):
    binary = make_problem("binary", "int8", 2, 3, 64, 64)
    with pytest.raises(KernelError, match=re.escape("`words` must be int64 [2, any, 1, 1]")):
        ops.packed_dot(binary.x_codes, binary.words, 64, 64, "ternary", "int8")


def test_an_activation_without_integers_is_refused(make_problem):
    problem = make_problem("binary", "int8", 2, 3, 64, 64)
    with pytest.raises(KernelError, match="No integer kernel for weights 'binary' with activations 'none'"):
        replace(problem, activation="none").linear()


@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_operators_pass_the_checks_of_torch(make_problem, weight, activation):
    problem = make_problem(weight, activation, 3, 5, 128, 64)
    scheme = (problem.num_inputs, problem.group_size, weight, activation)
    linear = (problem.x_codes, problem.x_scale, problem.words, problem.w_scale, problem.bias, *scheme)
    torch.library.opcheck(torch.ops.bitnet_train.packed_linear.default, linear)
    torch.library.opcheck(torch.ops.bitnet_train.packed_dot.default, (problem.x_codes, problem.words, *scheme))


def test_a_compiled_graph_gives_the_same_bits(make_problem):
    problem = make_problem("binary", "int8", 3, 5, 128, 64)
    words, scheme = problem.words, (128, 64, "binary", "int8")

    @torch.compile(backend="aot_eager", fullgraph=True)
    def run(x_codes, x_scale):
        return ops.packed_linear(x_codes, x_scale, words, problem.w_scale, problem.bias, *scheme)

    assert same_bits(run(problem.x_codes, problem.x_scale), problem.reference_linear())


def test_the_extension_refuses_an_array_it_would_have_to_copy(make_problem):
    if isa_module.core is None:
        pytest.skip("the extension is not built")
    problem = make_problem("binary", "int8", 2, 3, 64, 64)
    out = torch.empty(2, 3, 1, dtype=torch.int64)
    with pytest.raises(TypeError):
        isa_module.core.packed_dot(
            "portable", problem.x_codes.numpy(), problem.words.numpy(), out.numpy(), 64, False, 1
        )
