"""Blocks that are compiled or computed again train as they would; in evaluation they run as they are."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from bitnet_train.model.bit_linear import set_hardness
from bitnet_train.model.quantized_linear import Products, training_products
from bitnet_train.train.loop import blocks_of_step
from bitnet_train.train.loop.blocks_of_step import as_they_are, prepare_blocks
from tests.fixtures.tiny_run import rows, tiny_module


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def _gradients(student: nn.Module, products: Products = "float") -> dict[str, torch.Tensor]:
    """Return the gradients of a step, dropout drawn the same at every call."""
    torch.manual_seed(0)
    student.train().zero_grad()
    piece = rows(0)
    with training_products(products):
        loss = student(input_ids=piece["input_ids"], labels=piece["input_ids"], use_cache=False).loss
    loss.backward()
    return {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}


@pytest.fixture
def through_aot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record blocks whole, and run what was recorded without a C++ compiler: seconds instead of minutes."""
    real = torch.compile
    monkeypatch.setattr(blocks_of_step.torch, "compile", lambda call: real(call, backend="aot_eager", fullgraph=True))


@pytest.mark.slow
def test_compiled_blocks_are_one_graph_and_give_the_same_gradients_computed_twice(through_aot: None) -> None:
    student = tiny_module(dropout=0.0).student
    student.get_input_embeddings().requires_grad_(True)  # else the first block has a graph that stops at its input
    own = {level: _moved(student, level) for level in (1.0, 9.0)}
    prepare_blocks(student, compiled=True, checkpointed=True)
    graphs = set()
    for level, gradients in own.items():
        other = _moved(student, level)
        assert all(torch.allclose(other[name], grad, rtol=1e-4, atol=1e-6) for name, grad in gradients.items())
        graphs.add(counters["stats"]["unique_graphs"])
    assert graphs == {1}, "both blocks share it, and a level adds none"
    assert not counters["graph_break"]
    compiled = dict(counters["stats"])
    student.eval()(input_ids=rows(0)["input_ids"], use_cache=False)
    with as_they_are():
        _gradients(student)
    assert dict(counters["stats"]) == compiled, "evaluation is not compiled, nor is what is asked as it is"


def _moved(student: nn.Module, level: float) -> dict[str, torch.Tensor]:
    set_hardness(student, level)
    return _gradients(student)


@pytest.mark.parametrize("products", ["float", "integer"])
def test_blocks_computed_again_give_the_very_gradients_in_the_products_of_the_step(
    products: Products, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bitnet_train.model.quantized_linear.MIN_TOKENS", 1)
    student = tiny_module(dropout=0.0).student
    set_hardness(student, 100.0)
    own = _gradients(student, products)
    prepare_blocks(student, compiled=False, checkpointed=True, products=products)
    other = _gradients(student, products)
    assert own.keys() == other.keys()
    assert all(torch.equal(other[name], grad) for name, grad in own.items())


def test_a_copy_of_a_block_runs_the_copy() -> None:
    student = tiny_module(dropout=0.0).student
    prepare_blocks(student, compiled=False, checkpointed=True)
    copied = deepcopy(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(torch.nan)
    assert all(bool(grad.isfinite().all()) for grad in _gradients(copied).values())
