from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bitnet_train.train.losses.head_loss import TeacherStates
from bitnet_train.train.losses.kept_answers import StateAnswers, TopAnswers
from bitnet_train.train.losses.logit_loss import LogitWeights, Target, TeacherLogits, logit_loss
from bitnet_train.train.losses.plain_head import plain_head
from bitnet_train.train.losses.settings import LossConfig
from bitnet_train.train.losses.teacher_cache import TeacherCache
from bitnet_train.train.losses.teacher_top_k import TopK
from bitnet_train.train.losses.token_losses import next_labels
from tests.fixtures.tiny_run import ROWS, VOCABULARY, Rows, llama, rows, run, tiny_module


def piece(index: int = 0) -> dict[str, torch.Tensor]:
    made = rows(index)
    made["attention_mask"][1, 9:] = 0
    made["labels"][1, 9:] = -100
    return made


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("teacher-*/shard-*.bin"))


Make = Callable[[Path, nn.Module], TeacherCache]


def top(folder: Path, teacher: nn.Module, top_k: int = 8) -> TeacherCache:
    return TeacherCache(folder, teacher, TopAnswers(teacher, top_k))


def states(folder: Path, teacher: nn.Module) -> TeacherCache:
    parts = plain_head(teacher)
    assert parts is not None
    return TeacherCache(folder, teacher, StateAnswers(parts))


def tensors(target: Target) -> tuple[Tensor, ...]:
    if isinstance(target, TeacherStates):
        return (target.states,)
    assert isinstance(target, TopK)
    return target.log_probabilities, target.token_ids


def same(first: Target, second: Target) -> bool:
    return all(torch.equal(*pair) for pair in zip(tensors(first), tensors(second), strict=True))


each_kind = pytest.mark.parametrize("make", [top, states])


def never(*_: object) -> None:
    raise AssertionError("the teacher was asked")


@each_kind
def test_a_second_reader_needs_no_teacher_and_gets_the_same(make: Make, tmp_path: Path) -> None:
    teacher = llama().eval()
    first = make(tmp_path, teacher)
    made = first.target(piece())
    first.close()
    second = make(tmp_path, teacher)
    teacher.model.register_forward_pre_hook(never)
    again = second.target(piece())
    assert (second.hits, second.misses) == (ROWS, 0)
    assert same(made, again)


@each_kind
def test_a_row_is_known_whatever_stands_beside_it_and_however_it_is_padded(make: Make, tmp_path: Path) -> None:
    teacher = llama().eval()
    cache = make(tmp_path, teacher)
    whole = tensors(cache.target(piece()))[0].unflatten(0, (ROWS, -1))
    teacher.model.register_forward_pre_hook(never)
    alone = {name: values[1:2, :9] for name, values in piece().items()}
    assert torch.equal(tensors(cache.target(alone))[0], whole[1, :9])


@each_kind
def test_only_rows_that_are_missing_are_asked_for(make: Make, tmp_path: Path) -> None:
    teacher = llama().eval()
    cache = make(tmp_path, teacher)
    cache.target({name: values[:5] for name, values in piece().items()})
    asked = []
    teacher.model.register_forward_pre_hook(
        lambda _, __, given: asked.append(len(given["input_ids"])), with_kwargs=True
    )
    cache.target(piece())
    assert asked == [ROWS - 5]


def test_the_divergence_with_all_tokens_kept_is_the_teachers(tmp_path: Path) -> None:
    teacher, student = llama().eval(), llama().eval()
    with torch.no_grad():
        student.lm_head.weight.mul_(2.0)
        batch = piece()
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits, told = student(**inputs).logits, teacher(**inputs).logits
    targets, weights = next_labels(batch["labels"]), LogitWeights(kl=1.0)
    full, _ = logit_loss(logits, TeacherLogits(told.flatten(0, 1)), targets, weights)
    kept, _ = logit_loss(logits, top(tmp_path, teacher, VOCABULARY).target(batch), targets, weights)
    # float16 logarithms of magnitude below 8 are off by at most 2^-9 each
    assert float(kept) == pytest.approx(float(full), abs=2**-9 * int((targets != -100).sum()))


def test_kept_states_say_what_the_teacher_says_but_for_their_rounding(tmp_path: Path) -> None:
    teacher, student = llama().eval(), llama().eval()
    with torch.no_grad():
        student.lm_head.weight.mul_(2.0)
        batch = piece()
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits, told = student(**inputs).logits, teacher(**inputs, output_hidden_states=True)
        most = float((told.hidden_states[-1].abs() @ teacher.lm_head.weight.abs().t()).max()) * 2**-9
    real_R = batch["attention_mask"].bool().flatten()
    kept = states(tmp_path, teacher).target(batch)
    rounded, exact = tensors(kept)[0][real_R], told.hidden_states[-1].flatten(0, 1)[real_R]
    assert torch.equal(rounded, exact.to(torch.bfloat16).float())
    targets, weights = next_labels(batch["labels"]), LogitWeights(kl=1.0, reverse_kl=1.0)
    full, _ = logit_loss(logits, TeacherLogits(told.logits.flatten(0, 1)), targets, weights)
    found, _ = logit_loss(logits, kept, targets, weights)
    # a logit is off by at most 2^-9 sum |h W|, and no term over them by more than its own log-ratio and a factor 2
    spread = float((logits.flatten(0, 1)[real_R] - told.logits.flatten(0, 1)[real_R]).abs().max())
    assert found != full
    assert float(found) == pytest.approx(float(full), abs=4 * most * (1 + spread) * int((targets != -100).sum()))


@each_kind
def test_a_torn_record_is_passed_over_and_made_again(make: Make, tmp_path: Path) -> None:
    teacher = llama().eval()
    first = make(tmp_path, teacher)
    made = first.target(piece())
    first.close()
    (shard,) = shards(tmp_path)
    shard.write_bytes(shard.read_bytes()[:-7])
    second = make(tmp_path, teacher)
    again = second.target(piece())
    assert (second.hits, second.misses) == (ROWS - 1, 1)
    assert same(made, again)
    assert len(shards(tmp_path)) == 2


@each_kind
def test_a_changed_byte_is_reported_and_the_row_made_again(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = llama().eval()
    first = make(tmp_path, teacher)
    made = first.target(piece())
    first.close()
    (shard,) = shards(tmp_path)
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    second = make(tmp_path, teacher)
    again = second.target(piece())
    assert second.misses == 1
    assert same(made, again)
    assert "damaged" in caplog.text


def test_another_teacher_k_or_kind_has_another_folder(tmp_path: Path) -> None:
    teacher = llama().eval()
    top(tmp_path, teacher, 8).target(piece())
    with torch.no_grad():
        teacher.model.norm.weight[0] += 1e-3
    top(tmp_path, teacher, 8).target(piece())
    top(tmp_path, teacher, 4).target(piece())
    states(tmp_path, teacher).target(piece())
    assert len({shard.parent for shard in shards(tmp_path)}) == 4


def test_a_disk_that_cannot_be_written_costs_time_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = top(blocked, llama().eval(), 8)
    cache.target(piece())
    assert "cannot be written" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(("make", "precision"), [(top, "fp32"), (top, "bf16"), (states, "fp32")])
def test_training_on_the_cache_asks_the_teacher_once_per_row(tmp_path: Path, make: Make, precision: str) -> None:
    module = tiny_module(steps=3, loss=LossConfig(kl=1.0))
    assert module.teacher is not None
    module.teacher_cache = make(tmp_path / "cache", module.teacher)
    run(tmp_path / "run", module, data=Rows(repeat=True), validate_every_steps=0, precision=precision)
    assert module.teacher_cache.misses == ROWS
    assert module.teacher_cache.hits == 2 * ROWS
