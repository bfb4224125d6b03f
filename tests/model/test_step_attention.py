"""Within `step_attention` a model computes what torch's attention does, by the kernels; outside it is as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bitnet_train.kernels import attention as kernels
from bitnet_train.model import step_attention as door
from bitnet_train.model.step_attention import attention_again, step_attention
from tests.fixtures.tiny_run import rows, tiny_module

IDS = rows(0)["input_ids"]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """The masks of the calls of the kernels."""
    calls: list[Tensor | None] = []

    def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        calls.append(mask)
        return kernels.fused_attention(q, k, v, mask, scale)

    monkeypatch.setattr(door, "fused_attention", fused)
    monkeypatch.setattr(door, "MIN_TOKENS", 1)
    return calls


@pytest.fixture
def teacher() -> Any:
    model = tiny_module(dropout=0.0).teacher
    assert model is not None
    return model.eval()


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-4)  # a layer passes on roundings of the one before it


def test_a_model_attends_through_the_kernels_within_and_is_as_it_was_afterwards(teacher: Any, seen: list) -> None:
    before = teacher(input_ids=IDS).logits
    with step_attention(teacher):
        within = teacher(input_ids=IDS).logits
    assert len(seen) == len(teacher.model.layers)
    assert set(seen) == {None}
    assert _close(within, before)
    assert teacher.config._attn_implementation == "sdpa"
    assert torch.equal(teacher(input_ids=IDS).logits, before)


def test_packed_documents_are_kept_apart_and_padding_is_hidden(teacher: Any, seen: list) -> None:
    length = IDS.shape[1]
    positions = torch.arange(length).remainder(7).expand(IDS.shape)
    padded = torch.ones_like(IDS)
    padded[:, length - 5 :] = 0
    for given in ({"position_ids": positions}, {"attention_mask": padded}):
        before = teacher(input_ids=IDS, use_cache=False, **given).logits
        with step_attention(teacher):
            within = teacher(input_ids=IDS, use_cache=False, **given).logits
        real = padded.bool() if "attention_mask" in given else torch.ones_like(padded).bool()
        assert _close(within[real], before[real])
    assert all(mask is not None for mask in seen)
    assert len(seen) == 2 * len(teacher.model.layers)


def test_what_the_kernels_do_not_compute_goes_to_torch(teacher: Any, seen: list) -> None:
    before = teacher.generate(IDS[:1, :8], max_new_tokens=4, do_sample=False)
    seen.clear()
    with step_attention(teacher):
        assert torch.equal(teacher.generate(IDS[:1, :8], max_new_tokens=4, do_sample=False), before)
    assert len(seen) == len(teacher.model.layers), "the prompt alone: what follows has a cache"
    module, q = teacher.model.layers[0].self_attn, torch.randn(1, 2, 40, 16)
    seen.clear()
    door._attend(module, q, q, q, None, dropout=0.5)
    door._attend(module, q, q, q, torch.zeros(1, 1, 40, 40))
    assert not seen


def test_what_is_compiled_holds_torchs_own(teacher: Any, seen: list) -> None:
    module, q = teacher.model.layers[0].self_attn, torch.randn(1, 2, 40, 16, requires_grad=True)
    compiled = torch.compile(lambda x: door._attend(module, x, x, x, None)[0], backend="aot_eager", fullgraph=True)
    compiled(q).sum().backward()
    assert not seen
    assert _close(compiled(q), door._attend(module, q, q, q, None)[0])
    torch._dynamo.reset()


def test_a_model_that_asks_for_another_attention_keeps_it(teacher: Any, seen: list) -> None:
    teacher.set_attn_implementation("eager")
    with step_attention(teacher):
        teacher(input_ids=IDS)
        assert teacher.config._attn_implementation == "eager"
    assert not seen


def test_a_step_attends_so_in_both_models_and_gives_the_gradients(seen: list) -> None:
    module = tiny_module(dropout=0.0)
    batch = rows(0)
    module.token_sums(batch, 1.0)  # the first asks both models whether their heads are plain
    seen.clear()
    made = module.token_sums(batch, 1.0)
    module.total_loss(made, 1.0).backward()
    assert module.teacher is not None
    assert len(seen) == 2 * len(module.teacher.model.layers)
    own = {name: p.grad.clone() for name, p in module.student.named_parameters() if p.grad is not None}
    module.student.zero_grad()
    for model in (module.student.get_base_model(), module.teacher):
        model.config._attn_implementation = "eager"
    module.total_loss(module.token_sums(batch, 1.0), 1.0).backward()
    for name, parameter in module.student.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, own[name], rtol=1e-3, atol=1e-5), name


def test_blocks_that_transformers_computes_again_attend_both_times_alike(seen: list) -> None:
    module = tiny_module(dropout=0.0)
    student: Any = module.student.train()
    whole = student.get_base_model()
    enable = getattr(whole, "activation_checkpointing_enable", None) or whole.gradient_checkpointing_enable
    enable()
    whole.enable_input_require_grads()
    module.total_loss(module.token_sums(rows(0), 1.0), 1.0).backward()
    assert all(bool(p.grad.isfinite().all()) for p in student.parameters() if p.grad is not None)
    assert whole.config._attn_implementation == "sdpa"


def test_a_part_that_runs_again_attends_as_it_did(teacher: Any) -> None:
    block = teacher.model.layers[0]
    with step_attention(teacher):
        again = attention_again(block)
    with again:
        assert teacher.config._attn_implementation == door.NAME
    with attention_again(block):
        assert teacher.config._attn_implementation == "sdpa"
