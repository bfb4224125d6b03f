"""Within `torch.compile` a 1-bit linear is one graph: nothing breaks it, and a schedule that moves compiles nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from bitnet_train.model.bit_linear import BitLinear, set_hardness
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Clipped, Identity, Surrogate, Tanh

INT8 = ActivationScheme("int8")
LAYERS = [
    (WeightScheme("binary", "group", 64, learnable_scale=True), Tanh(), (1.0, 7.0, 100.0)),
    (WeightScheme("binary", "group", 64, planes=2, learnable_scale=True), Tanh(), (1.0, 7.0, 100.0)),
    (WeightScheme(), Clipped(3.0), (0.0, 0.5, 1.0)),
    (WeightScheme("ternary", "tensor", learnable_scale=True), Identity(), (0.0, 0.5, 1.0)),
]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no graph be there yet, and the pure functions compute, as on every device but the CPU."""
    monkeypatch.setattr("bitnet_train.kernels.fake_quantize._core", lambda: None)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def _layer(scheme: WeightScheme, surrogate: Surrogate) -> BitLinear:
    torch.manual_seed(0)
    return BitLinear.from_linear(torch.nn.Linear(128, 64), scheme, INT8, surrogate).train()


def _step(call: object, layer: BitLinear, *, bf16: bool) -> list[Tensor]:
    """Return the output and every gradient."""
    layer.zero_grad()
    x = torch.linspace(-3, 3, 20 * 128).reshape(20, 128).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = call(x)  # type: ignore[operator]
    y.float().square().sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]  # type: ignore[list-item]


@pytest.mark.parametrize(("scheme", "surrogate", "levels"), LAYERS, ids=lambda value: getattr(value, "name", None))
def test_a_moving_schedule_compiles_nothing_anew_and_all_bits_are_those_without(
    scheme: WeightScheme, surrogate: Surrogate, levels: tuple[float, ...]
) -> None:
    """`aot_eager` runs what it records, operation by operation; how a GPU rounds them, `scripts.gpu_check` says."""
    layer, bf16 = _layer(scheme, surrogate), scheme.planes == 1
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for level in levels:
        set_hardness([layer], level)
        own, other = _step(layer, layer, bf16=bf16), _step(compiled, layer, bf16=bf16)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(own, other, strict=True))
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert not counters["recompiles"]


class _ReadBack(TorchDispatchMode):
    """Counts what makes the host wait for a device: a number read, or a shape that follows from values."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if function.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero"):
            self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("scheme", "surrogate", "levels"), LAYERS, ids=lambda value: getattr(value, "name", None))
def test_the_pure_functions_read_nothing_back(
    scheme: WeightScheme, surrogate: Surrogate, levels: tuple[float, ...]
) -> None:
    layer = _layer(scheme, surrogate)
    with _ReadBack() as seen:
        for level in levels:
            set_hardness([layer], level)
            _step(layer, layer, bf16=True)
    assert seen.names == []
