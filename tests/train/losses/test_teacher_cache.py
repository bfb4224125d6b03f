from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bitnet_train.train.losses.logit_loss import LogitWeights, TeacherLogits, logit_loss
from bitnet_train.train.losses.settings import LossConfig
from bitnet_train.train.losses.teacher_cache import TeacherCache
from bitnet_train.train.losses.token_losses import next_labels
from tests.fixtures.tiny_run import ROWS, VOCABULARY, Rows, llama, rows, run, tiny_module


def piece(index: int = 0) -> dict[str, torch.Tensor]:
    made = rows(index)
    made["attention_mask"][1, 9:] = 0
    made["labels"][1, 9:] = -100
    return made


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("teacher-*/shard-*.bin"))


def never(*_: object) -> None:
    raise AssertionError("the teacher was asked")


def test_a_second_reader_needs_no_teacher_and_gets_the_same(tmp_path: Path) -> None:
    teacher = llama().eval()
    first = TeacherCache(tmp_path, teacher, 8)
    made = first.target(piece())
    first.close()
    second = TeacherCache(tmp_path, teacher, 8)
    teacher.register_forward_pre_hook(never)
    again = second.target(piece())
    assert (second.hits, second.misses) == (ROWS, 0)
    assert torch.equal(made.log_probabilities, again.log_probabilities)
    assert torch.equal(made.token_ids, again.token_ids)


def test_a_row_is_known_whatever_stands_beside_it_and_however_it_is_padded(tmp_path: Path) -> None:
    teacher = llama().eval()
    cache = TeacherCache(tmp_path, teacher, 8)
    whole = cache.target(piece()).log_probabilities.unflatten(0, (ROWS, -1))
    teacher.register_forward_pre_hook(never)
    alone = {name: values[1:2, :9] for name, values in piece().items()}
    assert torch.equal(cache.target(alone).log_probabilities, whole[1, :9])


def test_only_rows_that_are_missing_are_asked_for(tmp_path: Path) -> None:
    teacher = llama().eval()
    cache = TeacherCache(tmp_path, teacher, 8)
    cache.target({name: values[:5] for name, values in piece().items()})
    asked = []
    teacher.register_forward_pre_hook(lambda _, __, given: asked.append(len(given["input_ids"])), with_kwargs=True)
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
    kept, _ = logit_loss(logits, TeacherCache(tmp_path, teacher, VOCABULARY).target(batch), targets, weights)
    # float16 logarithms of magnitude below 8 are off by at most 2^-9 each
    assert float(kept) == pytest.approx(float(full), abs=2**-9 * int((targets != -100).sum()))


def test_a_torn_record_is_passed_over_and_made_again(tmp_path: Path) -> None:
    teacher = llama().eval()
    first = TeacherCache(tmp_path, teacher, 8)
    made = first.target(piece())
    first.close()
    (shard,) = shards(tmp_path)
    shard.write_bytes(shard.read_bytes()[:-7])
    second = TeacherCache(tmp_path, teacher, 8)
    again = second.target(piece())
    assert (second.hits, second.misses) == (ROWS - 1, 1)
    assert torch.equal(made.log_probabilities, again.log_probabilities)
    assert len(shards(tmp_path)) == 2


def test_a_changed_byte_is_reported_and_the_row_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    teacher = llama().eval()
    first = TeacherCache(tmp_path, teacher, 8)
    made = first.target(piece())
    first.close()
    (shard,) = shards(tmp_path)
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    second = TeacherCache(tmp_path, teacher, 8)
    again = second.target(piece())
    assert second.misses == 1
    assert torch.equal(made.log_probabilities, again.log_probabilities)
    assert "damaged" in caplog.text


def test_another_teacher_or_k_has_another_folder(tmp_path: Path) -> None:
    teacher = llama().eval()
    TeacherCache(tmp_path, teacher, 8).target(piece())
    with torch.no_grad():
        teacher.model.norm.weight[0] += 1e-3
    TeacherCache(tmp_path, teacher, 8).target(piece())
    TeacherCache(tmp_path, teacher, 4).target(piece())
    assert len({shard.parent for shard in shards(tmp_path)}) == 3


def test_a_disk_that_cannot_be_written_costs_time_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = TeacherCache(blocked, llama().eval(), 8)
    cache.target(piece())
    assert "cannot be written" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_on_the_cache_asks_the_teacher_once_per_row(tmp_path: Path, precision: str) -> None:
    module = tiny_module(steps=3, loss=LossConfig(kl=1.0))
    module.teacher_cache = TeacherCache(tmp_path / "cache", module.teacher, 8)
    run(tmp_path / "run", module, data=Rows(repeat=True), validate_every_steps=0, precision=precision)
    assert module.teacher_cache.misses == ROWS
    assert module.teacher_cache.hits == 2 * ROWS
