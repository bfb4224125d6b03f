from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

import bitnet_train
from bitnet_train.errors import ConfigError, DataError
from bitnet_train.train.losses import token_losses
from bitnet_train.train.losses.settings import LossConfig
from tests.fixtures.tiny_run import llama, rows

PLAIN = {"precision": "fp32", "products": "float", "quiet": True}


def students() -> tuple[torch.nn.Module, torch.nn.Module]:
    student, teacher = llama(0.0), llama(0.0)
    bitnet_train.convert(student, "binary_row")
    return student, teacher


@pytest.mark.slow
def test_a_loader_trains_a_model_and_the_folder_has_the_record(tmp_path: Path) -> None:
    student, teacher = students()
    before = {name: tensor.clone() for name, tensor in student.named_parameters()}
    loader = [rows(0), rows(1)]
    result = bitnet_train.fit(student, loader, tmp_path, teacher=teacher, steps=5, held_out=loader, **PLAIN)
    assert (result.steps, result.checkpoint.parent) == (5, tmp_path / "checkpoints")
    assert any(not torch.equal(before[name], tensor) for name, tensor in student.named_parameters())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5]
    assert lines[-1]["val_ce"] == result.metrics["val_ce"]


@pytest.mark.slow
def test_one_pass_is_the_usual_length_and_names_choose_loss_and_rate(tmp_path: Path) -> None:
    student, _ = students()
    result = bitnet_train.fit(student, [rows(0)] * 3, tmp_path, loss="ce", optimizer="adamw_lora", **PLAIN)
    assert result.steps == 3
    assert "kl" not in result.metrics
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["lr"] <= 1e-3


class Press(Callback):
    def on_train_batch_end(self, trainer, module, *rest) -> None:
        if module.step == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_an_interrupted_kernel_keeps_its_steps_and_goes_on(tmp_path: Path) -> None:
    student, teacher = students()
    given = {"teacher": teacher, "steps": 4, **PLAIN}
    with pytest.raises(KeyboardInterrupt, match=r'after step \d: saved .*continue with `resume="auto"`'):
        bitnet_train.fit(student, [rows(0)], tmp_path, callbacks=[Press()], **given)
    with pytest.raises(ConfigError, match=r'`resume="auto"` to go on, or another `folder`'):
        bitnet_train.fit(student, [rows(0)], tmp_path, **given)
    assert bitnet_train.fit(student, [rows(0)], tmp_path, resume="auto", **given).steps == 4


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ({"loss": "kl-ce"}, ConfigError, r"Did you mean `kl_ce`"),
        ({"schedule": "cosine"}, ConfigError, r"there is no such choice.*Choices of `schedule`"),
        ({"teacher": None}, ConfigError, "compare with a frozen model"),
        ({"steps": None}, ConfigError, "does not say how many batches it has. Give `steps`"),
        ({"steps": 0}, ConfigError, r"max_steps=0"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path: Path, words, error, said) -> None:
    student, teacher = students()
    given = {"teacher": teacher, "steps": 2, **PLAIN, **words}
    with pytest.raises(error, match=said):
        bitnet_train.fit(student, (batch for batch in [rows(0)]), tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_batch_that_is_none_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    student, teacher = students()
    with pytest.raises(DataError, match="A batch is a mapping"):
        bitnet_train.fit(student, [["text"]], tmp_path, teacher=teacher, **PLAIN)


def test_the_loss_of_a_loop_of_ones_own_is_that_of_the_module() -> None:
    student, teacher, batch = llama(0.0), llama(0.0), rows(0)
    bitnet_train.convert(student, "binary_row")
    made, told = student(batch["input_ids"]).logits, teacher(batch["input_ids"]).logits.detach()
    trained = token_losses.count_trained(batch["labels"])
    kl = token_losses.kl(made, told, batch["labels"]) / trained
    ce = token_losses.ce(made, batch["labels"]) / trained
    loss = bitnet_train.distillation_loss(made, told, batch["labels"], LossConfig(kl=2.0, ce=0.5))
    torch.testing.assert_close(loss, 2 * kl + 0.5 * ce)  # float32 sums in another order
    loss.backward()
    assert any(parameter.grad is not None for parameter in student.parameters())


def test_a_loss_that_is_not_over_logits_is_refused() -> None:
    logits, labels = torch.zeros(1, 3, 4), torch.zeros(1, 3, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"`loss.hidden` is not over logits.*bitnet_train.fit"):
        bitnet_train.distillation_loss(logits, logits, labels, "kl_hidden")
    with pytest.raises(ConfigError, match="none were given"):
        bitnet_train.distillation_loss(logits, None, labels)
    assert float(bitnet_train.distillation_loss(logits, None, labels - 100, "ce")) == 0.0  # no label: nothing trained
