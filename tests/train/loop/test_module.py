from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.model.bit_linear import set_hardness
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.losses import token_losses
from bitnet_train.train.losses.settings import LossConfig
from tests.fixtures import tiny_run
from tests.fixtures.rounding import CHAIN, CONDITION
from tests.fixtures.tiny_run import (
    UNBALANCED,
    KeepGradients,
    Rows,
    Uneven,
    balanced_module,
    figures,
    llama,
    rows,
    run,
    tiny_module,
    trained_tensors,
)


def gradients(tmp_path: Path, micro_rows: int, **options) -> list[dict[str, torch.Tensor]]:
    keep = KeepGradients()
    module = tiny_module(**{"steps": 2, "micro_rows": micro_rows, "dropout": 0.0} | options)
    run(tmp_path / str(micro_rows), module, callbacks=[keep])
    return keep.steps


def relative_distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    difference = sum(float((one[name] - other[name]).double().square().sum()) for name in one)
    return math.sqrt(difference / sum(float(tensor.double().square().sum()) for tensor in one.values()))


@pytest.mark.slow
def test_eight_micro_batches_give_the_gradient_of_one(tmp_path: Path) -> None:
    whole = gradients(tmp_path, 8, loss=UNBALANCED)
    for micro_rows in (1, 3):
        split = gradients(tmp_path, micro_rows, loss=UNBALANCED)
        distance = relative_distance(whole[0], split[0])
        assert distance < CHAIN * CONDITION * 2**-24, distance


def test_an_average_of_micro_batch_means_would_be_seen(tmp_path: Path) -> None:
    """The check above can fail: the rows are unequal enough that the classic bug moves the gradient by over 10 %."""
    student = llama(0.0)

    def gradient(batch: dict[str, torch.Tensor], divisor: float) -> dict[str, torch.Tensor]:
        student.zero_grad()
        (token_losses.ce(student(batch["input_ids"]).logits, batch["labels"]) / divisor).backward()
        return {name: p.grad.clone() for name, p in student.named_parameters()}

    batch = rows(0)
    right = gradient(batch, token_losses.count_trained(batch["labels"]))
    pieces = [{name: values[i : i + 1] for name, values in batch.items()} for i in range(8)]
    means = [gradient(piece, token_losses.count_trained(piece["labels"])) for piece in pieces]
    wrong = {name: torch.stack([mean[name] for mean in means]).mean(0) for name in right}
    assert relative_distance(right, wrong) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_gradient_of_one(tmp_path: Path, strategy: str) -> None:
    script = [tiny_run.__file__, str(tmp_path / "two"), "--strategy", strategy]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *script]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (torch.load(tmp_path / f"two/rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    (single,) = gradients(tmp_path, 2, steps=1, loss=UNBALANCED)
    assert relative_distance(single, one["gradients"]) < CHAIN * CONDITION * 2**-24
    assert relative_distance(one["gradients"], two["gradients"]) == 0.0
    assert float(one["balance"]) == float(two["balance"]) != 1.0
    assert all(torch.equal(tensor, two["trained"][name]) for name, tensor in one["trained"].items())
    for micro_rows in (8, 3):
        check_balanced(tmp_path / f"one-{micro_rows}", micro_rows, float(one["balance"]), tmp_path / "two/balanced")
    if strategy == "fsdp":
        check_resumed(tmp_path / "two/twice")


def check_balanced(run_dir: Path, micro_rows: int, balance: float, others: Path) -> None:
    """One process has the balance and the losses of the run at `others`, however its rows are split.

    A norm is rounded as its gradient is, and a loss is a weighted sum of such sums of which all are positive.
    """
    module = balanced_module(micro_rows)
    run(run_dir, module, data=Uneven(), validate_every_steps=4)
    bound = CHAIN * CONDITION * 2**-24
    assert float(module.hidden_balance) == pytest.approx(balance, rel=2 * bound)
    for name, count in (("loss", 4), ("val_ce", 1), ("val_kl", 1), ("val_tokens", 1)):
        own, theirs = ([line[name] for line in figures(folder) if name in line] for folder in (run_dir, others))
        assert len(own) == count
        assert own == pytest.approx(theirs, rel=3 * bound)


def check_resumed(run_dir: Path) -> None:
    """A run of a spread model that goes on from a checkpoint is the one that was not stopped, bit for bit.

    And its checkpoint is that of a model in one process, which goes on from it.
    """
    folder, last = run_dir / "checkpoints", "step-000004/state.pt"
    one, two = (torch.load(file, weights_only=True) for file in (folder / "abandoned" / last, folder / last))
    assert all(torch.equal(tensor, two["state_dict"][name]) for name, tensor in one["state_dict"].items())
    moments, others = (state["optimizer_states"][0]["state"] for state in (one, two))
    assert all(torch.equal(moments[n][kind], others[n][kind]) for n in moments for kind in moments[n])
    module = tiny_module(steps=4)
    run(run_dir, module, resume=str(folder / "step-000002"), validate_every_steps=0)
    assert module.step == 4
    assert all(one["state_dict"][name].shape == tensor.shape for name, tensor in trained_tensors(module).items())


def test_the_teacher_is_nowhere_near_the_optimiser_or_the_state() -> None:
    module = tiny_module()
    teacher = {id(p) for p in module.teacher.parameters()}
    assert teacher.isdisjoint(id(p) for p in module.parameters())
    assert teacher.isdisjoint(id(p) for g in module.configure_optimizers().param_groups for p in g["params"])
    assert not any("teacher" in name for name in module.state_dict())
    module.train()
    assert not module.teacher.training


def test_the_teacher_stays_frozen_and_in_eval_mode_while_the_student_trains(tmp_path: Path) -> None:
    module = tiny_module(steps=2)
    before = {name: p.clone() for name, p in module.teacher.named_parameters()}
    run(tmp_path, module)
    assert all(torch.equal(before[name], p) for name, p in module.teacher.named_parameters())
    assert all(p.grad is None for p in module.teacher.parameters())
    assert not module.teacher.training
    assert module.student.training


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "products"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_run_learns_in_either_precision(tmp_path: Path, precision: str, products: torch.dtype) -> None:
    """One batch, over and over: the cross-entropy of labels at random can only fall by learning them."""
    module = tiny_module(steps=20, micro_rows=8, lr=2e-2, loss=LossConfig(kl=0.0, ce=1.0))
    seen = set()

    def start(*_: object) -> None:
        projection = next(m for n, m in module.student.named_modules() if n.endswith("1.mlp.down_proj"))
        projection.register_forward_hook(lambda *given: seen.add(given[-1].dtype))

    listen = LambdaCallback(on_train_start=start)
    result = run(
        tmp_path, module, data=Rows(repeat=True), precision=precision, validate_every_steps=0, callbacks=[listen]
    )
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert result.metrics["loss"] < first - 0.05
    assert seen == {products}
    assert all(p.dtype == torch.float32 for p in module.parameters())


@pytest.mark.slow
def test_the_hidden_term_is_balanced_by_measured_gradients(tmp_path: Path) -> None:
    module = tiny_module(steps=1, micro_rows=8, dropout=0.0, loss=LossConfig(kl=0.0, ce=1.0, hidden=1.0))
    run(tmp_path, module)
    factor = float(module.hidden_balance)

    fresh = tiny_module(steps=1, micro_rows=8, dropout=0.0)
    fresh.student.train()
    set_hardness(fresh.student, 0.3)
    batch = rows(0)
    options = {"output_hidden_states": True, "use_cache": False}
    student, teacher = fresh.student(batch["input_ids"], **options), fresh.teacher(batch["input_ids"], **options)
    trainable = [p for p in fresh.student.parameters() if p.requires_grad]

    def norm(loss: torch.Tensor) -> float:
        grads = torch.autograd.grad(loss, trainable, retain_graph=True, allow_unused=True)
        return math.sqrt(sum(float(g.square().sum()) for g in grads if g is not None))

    ce = token_losses.ce(student.logits, batch["labels"])
    hidden = token_losses.hidden(student.hidden_states[1:], teacher.hidden_states[1:], batch["labels"])
    assert factor * norm(hidden) / norm(ce) == pytest.approx(0.3, rel=CHAIN * CONDITION * 2**-24)
    assert factor != pytest.approx(1.0, abs=0.01)


@pytest.mark.slow
def test_validation_is_the_perplexity_of_the_evaluation_forward(tmp_path: Path) -> None:
    module = tiny_module(steps=1)
    result = run(tmp_path, module, validate_every_steps=1)
    module.student.eval()
    total, count = 0.0, 0
    for index in range(2):
        batch = rows(10_000 + index)
        with torch.no_grad():
            total += float(token_losses.ce(module.student(batch["input_ids"]).logits, batch["labels"]))
        count += token_losses.count_trained(batch["labels"])
    assert result.metrics["val_tokens"] == count
    assert result.metrics["val_ce"] == pytest.approx(total / count, rel=1e-5)
    assert result.metrics["val_perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)


def test_a_loss_without_its_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"none was given. Use `loss.ce`"):
        BitLightningModule(llama(), None, max_steps=1, micro_rows=1)


@pytest.mark.parametrize("key", ["max_steps", "micro_rows"])
def test_sizes_below_one_are_refused(key: str) -> None:
    sizes = {"max_steps": 1, "micro_rows": 1} | {key: 0}
    with pytest.raises(ConfigError, match=f"`trainer.{key}=0` must be 1 or more"):
        BitLightningModule(llama(), None, loss=LossConfig(kl=0.0, ce=1.0), **sizes)


@pytest.mark.slow
def test_a_step_without_trained_tokens_is_an_error(tmp_path: Path) -> None:
    callback = LambdaCallback(on_train_batch_start=lambda trainer, module, batch, index: batch["labels"].fill_(-100))
    with pytest.raises(DataError, match="step 0 have no trained token"):
        run(tmp_path, tiny_module(), callbacks=[callback])


@pytest.mark.slow
def test_no_held_out_rows_are_reported_once_and_training_goes_on(tmp_path: Path) -> None:
    module = tiny_module(steps=4)
    with pytest.warns(UserWarning, match=r"no held-out rows.*`data\.validation_fraction`") as told:
        result = run(tmp_path, module, data=Rows(validation=0), validate_every_steps=1)
    assert sum("held-out" in str(warning.message) for warning in told) == 1
    assert result.steps == 4
    assert not any(name.startswith("val_") for name in result.metrics)
