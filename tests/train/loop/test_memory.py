"""What a run takes is told part by part, and the parts are those of real tensors."""

from __future__ import annotations

import pytest
import torch

from bitnet_train.train.loop.activations import Kept, kept_bytes
from bitnet_train.train.loop.blocks_of_step import prepare_blocks
from bitnet_train.train.loop.memory import Memory, Room, memory
from bitnet_train.train.losses.composition import NO_HEADS
from bitnet_train.train.losses.head_loss import CPU_CHUNK_ROWS
from tests.fixtures.tiny_run import LENGTH, VOCABULARY, rows, tiny_module

CPU = torch.device("cpu")


def test_the_certain_parts_are_those_of_the_parameters() -> None:
    module = tiny_module()
    student = sum(p.numel() for p in module.student.parameters())
    trainable = sum(p.numel() for p in module.student.parameters() if p.requires_grad)
    teacher = sum(p.numel() for p in module.teacher.parameters())
    found = memory(module, 10, CPU)
    assert (found.weights, found.teacher) == (4 * student, 4 * teacher)
    assert (found.gradients, found.optimizer) == (4 * trainable, 8 * trainable)
    head = 4 * module.student.get_output_embeddings().weight.numel()
    extra = head if module.student.get_output_embeddings().weight.requires_grad else 0
    assert found.logits == 4 * 2 * 10 * VOCABULARY + extra
    assert memory(module, 10_000, CPU).logits == 4 * 2 * CPU_CHUNK_ROWS * VOCABULARY + extra, "never all logits"
    module._heads = NO_HEADS
    assert memory(module, 10, CPU).logits == 4 * 3 * 10 * VOCABULARY
    assert found.certain == found.weights + found.teacher + found.optimizer + found.gradients + found.logits


def test_a_teacher_in_bfloat16_and_shards_take_their_share() -> None:
    module = tiny_module()
    exact, rounded = memory(module, 10, CPU), memory(module, 10, torch.device("cuda"), bf16=True)
    assert exact.teacher / 2 < rounded.teacher < exact.teacher, "embedding and norms stay"
    assert memory(module, 10, CPU, bf16=True).teacher == exact.teacher, "a heap does not give back what is freed"
    shared = memory(module, 10, CPU, shards=4)
    assert (shared.weights, shared.gradients) == (exact.weights // 4, exact.gradients // 4)
    assert shared.teacher == exact.teacher


@pytest.mark.parametrize("bf16", [False, True])
def test_kept_bytes_are_those_that_a_real_forward_pass_keeps(bf16: bool) -> None:
    module = tiny_module(dropout=0.0)  # with dropout torch has no fused attention on the CPU
    student, piece = module.student, rows(0)
    kept: dict[int, torch.Tensor] = {}
    own = {tensor.data_ptr() for tensor in (*student.parameters(), *student.buffers())}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    student.train()
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        states = student.get_base_model().base_model(input_ids=piece["input_ids"], use_cache=False)
    real = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del states
    found = kept_bytes(student, *piece["input_ids"].shape, bf16=bf16)
    assert found is not None
    # states after the last norm, and what attention keeps beside its output, are a few of some twenty tensors a block
    assert found.total(checkpointed=False) == pytest.approx(real, rel=0.15)
    assert all(p.device.type == "cpu" for p in student.parameters())
    assert next(student.parameters()).detach().isfinite().all()


def test_a_model_without_blocks_is_not_counted() -> None:
    assert kept_bytes(torch.nn.Linear(2, 2), 1, LENGTH, bf16=False) is None


def test_the_count_is_the_same_where_blocks_are_recomputed_and_the_total_is_less() -> None:
    module = tiny_module()
    plain = kept_bytes(module.student, 4, LENGTH, bf16=False)
    prepare_blocks(module.student, compiled=False, checkpointed=True)
    assert kept_bytes(module.student, 4, LENGTH, bf16=False) == plain is not None
    assert plain.total(checkpointed=True) < plain.total(checkpointed=False)


def test_gradients_take_the_place_of_activations_unless_steps_accumulate() -> None:
    parts = {"weights": 1, "gradients": 10, "optimizer": 2, "teacher": 4, "logits": 3}
    assert Memory(**parts, activations=20).most == 7 + 23
    assert Memory(**parts, activations=2, running=1).most == 7 + 11
    assert Memory(**parts, activations=20, accumulates=True).most == 7 + 33
    kept = Kept(1, 10, 2, 4, first_on_heap=17, block_on_heap=13)
    assert kept.total(checkpointed=False) == 1 + 4 * 10
    assert kept.total(checkpointed=True) == 1 + 4 * 2 + 10
    assert kept.total(checkpointed=False, on_heap=True) == 1 + 17 + 3 * 13
    assert kept.total(checkpointed=True, on_heap=True) == 1 + 4 * 2 + 17


def test_on_a_cpu_activations_are_what_a_heap_takes_for_them() -> None:
    module, kept = tiny_module(), Kept(1, 10, 2, 4, first_on_heap=17, block_on_heap=13)
    assert memory(module, 10, CPU, kept=kept).activations == kept.total(checkpointed=False, on_heap=True)
    assert memory(module, 10, torch.device("cuda"), kept=kept).activations == kept.total(checkpointed=False)


def test_what_does_not_fit_is_told_with_what_takes_less() -> None:
    room = Room("this machine", 2_000_000_000)
    assert room.verdict(1_000_000_000) == "It fits: this machine has 2.00 GB free."
    assert room.verdict(3_000_000_000).startswith("It does not fit: this machine has 2.00 GB free. Fewer rows")
    assert "not known" in Room("this machine", None).verdict(1)
    told = Memory(weights=10**9, gradients=0, optimizer=0, teacher=0, logits=0).describe()
    assert told.startswith("1.00 GB at most at once, and the activations of a micro-batch (weights 1.00 GB")
