"""The compiled kernels equal the oracle: integers with `==`, floats bit for bit, on every instruction set here."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from bitnet_train.errors import FormatError, KernelError
from bitnet_train.formats.planes import NUM_PLANES, pack_planes
from bitnet_train.kernels import isa as isa_module
from bitnet_train.kernels import ops, reference
from bitnet_train.quant.scheme import CODES as WEIGHT_CODES
from bitnet_train.quant.scheme import ActivationName, CodeSet

WEIGHTS = tuple(NUM_PLANES)
SHAPES = [  # K, group size
    (1, 1), (63, 63), (63, 3), (64, 64), (64, 1), (65, 65), (192, 96), (192, 64), (384, 128), (384, 192), (384, 3),
    (576, 576), (576, 64), (576, 96), (4097, 4097), (769, 1), (4097, 241),
]  # fmt: skip


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.equal(first.view(torch.int32), second.view(torch.int32))


KERNELS = [(isa, name) for name, isa, runs in (isa_module.core.kernels() if isa_module.core else ()) if runs]


EVERY = [*KERNELS, ("reference", "")]


@pytest.fixture(params=EVERY, ids=lambda kernel: f"{kernel[0]}-{kernel[1]}".strip("-"))
def isa(request):
    """Every row of the table that this machine can run, forced wherever it accepts the weight."""
    with ops.forced_isa(*request.param):
        yield request.param[0]


def test_every_scheme_of_the_quantisers_has_a_kernel():
    assert set(get_args(CodeSet)) == set(WEIGHT_CODES) == set(WEIGHTS)
    assert set(get_args(ActivationName)) - {"none"} == set(ops.ACTIVATIONS)


@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize(("num_inputs", "group_size"), SHAPES)
def test_every_kernel_equals_the_oracle(make_problem, weight, activation, num_inputs, group_size):
    problem = make_problem(weight, activation, 9, 67, num_inputs, group_size, half_scales=num_inputs % 2 == 0)
    expected, rescaled = reference.grouped_dot(problem.x_codes, problem.w_codes, group_size), problem.reference_linear()
    for kernel in EVERY:
        with ops.forced_isa(*kernel):
            stream, packed = problem.packed
            found = ops.packed_dot(problem.x_codes, stream, packed)
            assert found.dtype == torch.int32
            assert torch.equal(found, expected), kernel
            assert same_bits(ops.packed_linear(problem.x, stream, problem.bias, packed), rescaled), kernel


def test_every_number_of_tokens_gives_the_same_rows(make_problem, isa):
    whole = make_problem("binary", "int8", 17, 33, 576, 64)
    expected, (stream, packed) = whole.reference_linear(), whole.packed
    for num_tokens in range(18):
        found = ops.packed_linear(whole.x[:num_tokens], stream, whole.bias, packed)
        assert same_bits(found, expected[:num_tokens]), num_tokens


@pytest.mark.parametrize("extreme", [127, -128])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("num_inputs", [1, 63, 576, 4097, 1 << 17])
def test_the_largest_sums_do_not_overflow(make_problem, weight, sign, extreme, num_inputs):
    problem = make_problem(weight, "int8", 1, 2, num_inputs, num_inputs)
    code = sign * WEIGHT_CODES[weight][-1]
    for values, value in ((problem.x, extreme), (problem.x_codes, extreme), (problem.w_codes, code)):
        values.fill_(value)
    rescaled = problem.reference_linear()
    for kernel in EVERY:
        with ops.forced_isa(*kernel):
            stream, packed = problem.packed
            sums = ops.packed_dot(problem.x_codes, stream, packed)
            assert sums.flatten().tolist() == [extreme * code * num_inputs] * 2, kernel
            assert same_bits(ops.packed_linear(problem.x, stream, problem.bias, packed), rescaled), kernel


@pytest.mark.slow
def test_a_row_of_two_to_the_23_inputs_is_exact():
    num_inputs = 1 << 23
    planes = pack_planes(torch.ones(1, num_inputs, dtype=torch.int8), "binary")
    x_codes = torch.full((1, num_inputs), -128, dtype=torch.int8)
    for kernel in EVERY:
        with ops.forced_isa(*kernel):
            packed = ops.pack(planes, torch.ones(1, 1), num_inputs, num_inputs, "binary", "int8")
            assert ops.packed_dot(x_codes, *packed).item() == -(1 << 30), kernel


@st.composite
def shapes(draw: DrawFn) -> tuple[int, int, int, int]:
    group_size, num_groups = draw(st.integers(1, 300)), draw(st.integers(1, 5))
    return draw(st.integers(1, 20)), draw(st.integers(1, 70)), group_size * num_groups, group_size


@pytest.mark.slow
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


@pytest.mark.parametrize("num_tokens", [1, 40])
@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
@pytest.mark.parametrize("weight", ["ternary", "4-plane"])
def test_the_number_of_threads_does_not_change_a_bit(make_problem, isa, weight, activation, num_tokens):
    problem = make_problem(weight, activation, num_tokens, 8261 if num_tokens == 1 else 517, 1024, 128)
    before = torch.get_num_threads()
    results = []
    try:
        for num_threads in (1, 2, 5):
            torch.set_num_threads(num_threads)
            results.append(problem.linear())
    finally:
        torch.set_num_threads(before)
    assert all(same_bits(results[0], result) for result in results[1:])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_a_worker_that_leaves_the_cpu_of_its_caller_may_go_on_running_everywhere(make_problem):
    # Whatever CPU this thread has to itself, a worker is found there sooner or later.
    before, everywhere = torch.get_num_threads(), os.sched_getaffinity(0)
    problem = make_problem("binary", "int8", 1, 517, 1024, 128)
    expected = problem.linear()
    try:
        torch.set_num_threads(3)
        problem.linear()
        tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
        allowed = {task: os.sched_getaffinity(task) for task in tasks}
        for cpu in everywhere:
            os.sched_setaffinity(0, {cpu})
            assert all(same_bits(problem.linear(), expected) for _ in range(20))
        os.sched_setaffinity(0, everywhere)
        assert {task: os.sched_getaffinity(task) for task in allowed} == allowed
    finally:
        os.sched_setaffinity(0, everywhere)
        torch.set_num_threads(before)


BROKEN = {
    "x in half": ("x", lambda x: x.half()),
    "x one input short": ("x", lambda x: x[:, 1:].contiguous()),
    "x strided": ("x", lambda x: x.T.contiguous().T),
    "x with a batch dimension": ("x", lambda x: x[None]),
    "bias too long": ("bias", lambda x: torch.cat([x, x])),
    "bias in double": ("bias", lambda x: x.double()),
}


def refuse(name: str, broken: torch.Tensor):
    """The error that names an array, what is needed and what was given."""
    return pytest.raises(
        KernelError, match=rf"`{name}` must be .* got {str(broken.dtype)[6:]} {re.escape(str(list(broken.shape)))}"
    )


@pytest.mark.parametrize("case", BROKEN)
def test_wrong_arrays_are_refused_with_the_numbers(make_problem, isa, case):
    name, damage = BROKEN[case]
    problem = make_problem("binary", "int8", 4, 6, 128, 64)
    broken = damage(getattr(problem, name))
    with refuse(name, broken):
        replace(problem, **{name: broken}).linear()


@pytest.mark.parametrize("damage", [lambda s: s.half(), lambda s: s[1:], lambda s: s[:1, :1].half()])
def test_wrong_scales_are_refused_when_packing(make_problem, isa, damage):
    problem = make_problem("binary", "int8", 4, 6, 128, 64)
    broken = damage(problem.w_scale)
    with refuse("scale", broken):
        replace(problem, w_scale=broken).dot()


def test_codes_of_another_type_are_refused(make_problem, isa):
    problem = make_problem("binary", "int8", 4, 6, 128, 64)
    with refuse("x_codes", problem.x):
        replace(problem, x_codes=problem.x).dot()


def test_planes_of_another_scheme_are_refused(make_problem):
    binary = make_problem("binary", "int8", 2, 3, 64, 64)
    planes = pack_planes(binary.w_codes, "binary")
    with pytest.raises(FormatError, match=re.escape("must be uint8 [2, N, 8]")):
        ops.pack(planes, binary.w_scale, 64, 64, "ternary", "int8")


@pytest.mark.skipif(isa_module.core is None, reason="the extension is not built")
def test_a_stream_cut_short_is_refused_with_the_bytes(make_problem):
    problem = make_problem("binary", "int8", 2, 3, 64, 64)
    stream, weight = problem.packed
    with pytest.raises(ValueError, match=rf"a stream of {len(stream)} bytes is needed, not {len(stream) - 1}"):
        ops.packed_linear(problem.x, stream[:-1], None, weight)


def test_a_stream_at_an_odd_address_gives_the_same_bits(make_problem, isa):
    problem = make_problem("ternary", "int8", 2, 70, 192, 64)
    stream, weight = problem.packed
    moved = torch.cat([torch.zeros(3, dtype=torch.uint8), stream])[3:]
    assert same_bits(ops.packed_linear(problem.x, moved, problem.bias, weight), problem.reference_linear())


@pytest.mark.slow
@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize(("num_inputs", "group_size"), SHAPES)
def test_codes_and_scales_come_back(make_problem, weight, activation, num_inputs, group_size):
    problem = make_problem(weight, activation, 1, 70, num_inputs, group_size)
    for kernel in EVERY:
        with ops.forced_isa(*kernel):
            codes, scale = ops.unpack(*problem.packed)
        assert torch.equal(codes, problem.w_codes), kernel
        assert same_bits(scale, problem.w_scale), kernel


@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
@pytest.mark.parametrize("special", [0.0, -0.0, float("nan"), float("inf"), 1e-30, 3e38])
def test_special_inputs_give_what_the_reference_gives(make_problem, isa, activation, special):
    problem = make_problem("binary", activation, 2, 3, 64, 64)
    problem.x[0].fill_(special)
    actual, expected = problem.linear(), problem.reference_linear()
    assert torch.equal(actual.isnan(), expected.isnan())
    assert torch.equal(actual.nan_to_num(), expected.nan_to_num())


def test_an_activation_without_integers_is_refused(make_problem):
    problem = make_problem("binary", "int8", 2, 3, 64, 64)
    with pytest.raises(KernelError, match="No integer kernel for weights 'binary' with activations 'none'"):
        replace(problem, activation="none").linear()


@pytest.mark.slow
@pytest.mark.parametrize("activation", ops.ACTIVATIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_operators_pass_the_checks_of_torch(make_problem, weight, activation):
    problem = make_problem(weight, activation, 3, 5, 128, 64)
    stream, packed = problem.packed
    rest = (packed.kernel, *packed.spec)
    torch.library.opcheck(torch.ops.bitnet_train.packed_linear.default, (problem.x, stream, problem.bias, *rest))
    torch.library.opcheck(torch.ops.bitnet_train.packed_dot.default, (problem.x_codes, stream, *rest))


@pytest.mark.slow
def test_a_compiled_graph_gives_the_same_bits(make_problem):
    problem = make_problem("binary", "int8", 3, 5, 128, 64)
    stream, weight = problem.packed

    @torch.compile(backend="aot_eager", fullgraph=True)
    def run(x):
        return ops.packed_linear(x, stream, problem.bias, weight)

    assert same_bits(run(problem.x), problem.reference_linear())


@pytest.mark.skipif(isa_module.core is None, reason="the extension is not built")
def test_the_extension_refuses_an_array_it_would_have_to_copy(make_problem):
    problem = make_problem("binary", "int8", 2, 3, 64, 64)
    stream, weight = problem.packed
    out = torch.empty(2, 3, 1, dtype=torch.int64)
    with pytest.raises(TypeError):
        isa_module.core.packed_dot(weight.kernel, weight.spec, stream.numpy(), problem.x_codes.numpy(), out.numpy(), 1)


@pytest.mark.skipif(isa_module.core is None, reason="the extension is not built")
def test_the_extension_reads_a_read_only_array_and_refuses_to_write_one(make_problem):
    problem = make_problem("binary", "int8", 2, 3, 64, 64)
    stream, weight = problem.packed
    x, out = problem.x.numpy(), torch.empty(2, 3).numpy()
    x.flags.writeable = False
    isa_module.core.packed_linear(weight.kernel, weight.spec, stream.numpy(), x, problem.bias.numpy(), out, 1)
    assert same_bits(torch.from_numpy(out), problem.reference_linear())
    out.flags.writeable = False
    with pytest.raises(TypeError):
        isa_module.core.packed_linear(weight.kernel, weight.spec, stream.numpy(), x, None, out, 1)


CODES = [("int8", -128, True), ("int4", -8, True), ("int4", -9, False), ("int4", 8, False), ("sign", 0, False)]
CODES += [("sign", code, code in (-1, 1)) for code in (-128, -2, -1, 1, 2, 127)]


@pytest.mark.parametrize(("activation", "code", "fits"), CODES)
def test_a_code_that_the_scheme_has_not_is_refused(activation, code, fits, isa):
    planes = pack_planes(torch.ones(2, 64, dtype=torch.int8), "binary")
    packed = ops.pack(planes, torch.ones(2, 1), 64, 64, "binary", activation)
    x_codes = torch.ones(3, 64, dtype=torch.int8)
    x_codes[1, 5] = code
    if fits:
        assert ops.packed_dot(x_codes, *packed)[1, 0].item() == 63 + code
        return
    with pytest.raises(KernelError, match=rf"`x_codes` has {code}, which is no code of `{activation}`"):
        ops.packed_dot(x_codes, *packed)


@pytest.mark.skipif(isa_module.core is None, reason="the extension is not built")
@pytest.mark.parametrize(("activation", "code", "fits"), CODES)
def test_the_extension_itself_refuses_a_code_that_the_scheme_has_not(activation, code, fits):
    planes = pack_planes(torch.ones(2, 64, dtype=torch.int8), "binary")
    stream, weight = ops.pack(planes, torch.ones(2, 1), 64, 64, "binary", activation)
    x_codes = torch.ones(3, 64, dtype=torch.int8)
    x_codes[2, 63] = code
    sums, y, scale = torch.zeros(3, 2, 1, dtype=torch.int32), torch.zeros(3, 2), torch.ones(3, 1)
    arrays, codes = (weight.kernel, weight.spec, stream.numpy()), x_codes.numpy()
    refused = nullcontext() if fits else pytest.raises(ValueError, match=f"x_codes has {code}, and the codes of this")
    with refused:
        isa_module.core.packed_dot(*arrays, codes, sums.numpy(), 1)
    with refused:
        isa_module.core.packed_linear_codes(*arrays, codes, scale.numpy(), None, y.numpy(), 1)
    expected = 63 + code if fits else 0
    assert (sums[2, 0].item(), y[2, 0].item()) == (expected, expected)


@pytest.mark.skipif(isa_module.core is None, reason="the extension is not built")
@pytest.mark.parametrize("wrong", [[[1] * 64], None, "codes", np.ones((1, 64), np.float32), np.ones((1, 64), np.uint8)])
def test_the_extension_takes_no_codes_of_another_kind(wrong):
    planes = pack_planes(torch.ones(2, 64, dtype=torch.int8), "binary")
    stream, weight = ops.pack(planes, torch.ones(2, 1), 64, 64, "binary", "int8")
    with pytest.raises(TypeError):
        isa_module.core.packed_dot(weight.kernel, weight.spec, stream.numpy(), wrong, np.zeros((1, 2, 1), np.int32), 1)
