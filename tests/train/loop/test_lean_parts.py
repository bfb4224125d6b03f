"""Parts that keep less compute the very bits, and gradients that are as right."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaConfig, GemmaMLP, GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaMLP, LlamaRMSNorm

from bitnet_train.train.loop import lean_parts
from bitnet_train.train.loop.lean_parts import keep_less
from tests.fixtures.tiny_run import rows, tiny_module

TOKENS, WIDTH, INNER = 19, 48, 80
EPS32 = torch.finfo(torch.float32).eps


def _norm() -> LlamaRMSNorm:
    norm = LlamaRMSNorm(WIDTH)
    nn.init.normal_(norm.weight, 1.0, 0.3)
    return norm


def _unit() -> LlamaMLP:
    torch.manual_seed(0)
    return LlamaMLP(LlamaConfig(hidden_size=WIDTH, intermediate_size=INNER, num_attention_heads=4))


class _Model(nn.Module):
    """What `decoder_blocks` finds blocks in."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(parts)


@pytest.fixture(autouse=True)
def a_list_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lean_parts.decoder_blocks
    monkeypatch.setattr(
        lean_parts,
        "decoder_blocks",
        lambda model: ("layers", model.layers) if isinstance(model, _Model) else real(model),
    )


def _run(part: nn.Module, x: Tensor, dy: Tensor, bf16: bool = False) -> tuple[Tensor, list[Tensor]]:
    x = x.clone().requires_grad_()
    part.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = part(x)
    y.backward(dy.to(y.dtype))
    assert x.grad is not None
    return y.detach(), [x.grad, *(parameter.grad for parameter in part.parameters() if parameter.grad is not None)]


def _true_gradients(part: nn.Module, x: Tensor, dy: Tensor) -> list[Tensor]:
    """By the definition of the norm or the unit in float64; the classes themselves go through float32."""
    wide = deepcopy(part).double()
    x = x.double().requires_grad_()
    if isinstance(wide, LlamaRMSNorm):
        y = wide.weight * x / (x.square().mean(-1, keepdim=True) + wide.variance_epsilon).sqrt()
    else:
        gate = wide.gate_proj(x)
        y = wide.down_proj(gate / (1 + (-gate).exp()) * wide.up_proj(x))
    y.backward(dy.double())
    assert x.grad is not None
    return [x.grad, *(parameter.grad for parameter in wide.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("make", [_norm, _unit])
def test_the_forward_pass_is_the_same_to_the_bit_and_the_gradients_are_those_of_float64(make: type, bf16: bool) -> None:
    torch.manual_seed(1)
    part = make()
    x, dy = torch.randn(2, TOKENS, WIDTH), torch.randn(2, TOKENS, WIDTH)
    y, own = _run(part, x, dy, bf16)
    exact = _true_gradients(part, x, dy)
    assert keep_less(_Model(part)) == 1
    lean_y, lean = _run(part, x, dy, bf16)
    assert torch.equal(lean_y, y)
    for gradient, plain, truth in zip(lean, own, exact, strict=True):
        # As far from the truth as autograd is, but for the order of a handful of roundings an element.
        error, plain_error = (gradient - truth).norm(), (plain - truth).norm()
        assert error <= 1.5 * plain_error + 8 * EPS32 * truth.norm()


def test_a_norm_takes_narrow_states_as_the_model_does() -> None:
    torch.manual_seed(2)
    norm, x, dy = _norm(), torch.randn(TOKENS, WIDTH).bfloat16(), torch.randn(TOKENS, WIDTH)
    y, own = _run(norm, x, dy)
    keep_less(_Model(norm))
    lean_y, lean = _run(norm, x, dy)
    assert torch.equal(lean_y, y)
    assert [gradient.dtype for gradient in lean] == [gradient.dtype for gradient in own]
    truth = _true_gradients(norm, x, dy.to(y.dtype))
    for gradient, plain, true in zip(lean, own, truth, strict=True):
        assert (gradient - true).norm() <= (plain - true).norm(), "rounded once, where autograd rounds on the way"


def test_what_computes_otherwise_is_left_as_it_is() -> None:
    config = GemmaConfig(hidden_size=WIDTH, intermediate_size=INNER, hidden_act="gelu_pytorch_tanh")
    model = _Model(GemmaRMSNorm(WIDTH), GemmaMLP(config), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))
    assert keep_less(model) == 0
    assert all("forward" not in vars(part) for part in model.modules())


def test_a_frozen_norm_has_no_gradient() -> None:
    norm = _norm().requires_grad_(False)
    keep_less(_Model(norm))
    y = norm(torch.randn(TOKENS, WIDTH))
    assert not y.requires_grad


def test_a_student_trains_from_the_same_loss_with_less_kept() -> None:
    def step(student: nn.Module) -> tuple[float, int, dict[str, Tensor]]:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(0)
        student.train().zero_grad()
        ids = rows(0)["input_ids"]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = student(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        return float(loss), sum(kept.values()), {n: p.grad for n, p in student.named_parameters() if p.grad is not None}

    student = tiny_module(dropout=0.0).student
    loss, kept, gradients = step(student)
    gradients = {name: gradient.clone() for name, gradient in gradients.items()}
    assert keep_less(student) == 2 * (2 + 1), "two norms and a unit in each of two blocks"
    lean_loss, lean_kept, lean = step(student)
    assert lean_loss == loss
    assert lean_kept < kept
    assert lean.keys() == gradients.keys()
    assert all(torch.allclose(lean[name], gradient, rtol=1e-4, atol=1e-6) for name, gradient in gradients.items())
    copied = deepcopy(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(torch.nan)
    assert step(copied)[0] == loss, "a copy runs its own parts"


@pytest.mark.parametrize("with_head", [True, False])
def test_an_embedding_that_is_the_head_too_has_the_same_gradient(with_head: bool) -> None:
    def gradient(student: nn.Module) -> Tensor:
        (weight,) = [p for name, p in student.named_parameters() if name.endswith("embed_tokens.weight")]
        weight.requires_grad_()
        student.train().zero_grad()
        ids = rows(0)["input_ids"]
        output = student(input_ids=ids, labels=ids, use_cache=False, output_hidden_states=True)
        (output.loss if with_head else output.hidden_states[0].square().sum()).backward()
        assert weight.grad is not None
        return weight.grad.clone()

    student = tiny_module(dropout=0.0).student
    dense = gradient(student)
    keep_less(student)
    for each in (student, deepcopy(student)):
        found = gradient(each)
        assert not found.is_sparse
        # With the head, states and norms differ in the last bits on the way back; rows of tokens are summed in the
        # order of the tokens either way.
        assert torch.allclose(found, dense, rtol=1e-4, atol=1e-6) if with_head else torch.equal(found, dense)
