from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from tiny_run import run, tiny_module, trained_tensors

from bitnet_train.errors import TrainingError
from bitnet_train.train.checkpoint import AtomicCheckpointIO
from bitnet_train.train.guard import check_finite

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (INF, 1.0), (1.0, NAN), (1.0, INF)])
def test_a_number_that_is_none_names_the_step_and_the_last_checkpoint(loss: float, norm: float) -> None:
    with pytest.raises(
        TrainingError, match=r"diverged at step 7.*Last good checkpoint: x/step-000004.*Lower `optimizer"
    ):
        check_finite(loss, norm, 7, Path("x/step-000004"))


def test_finite_numbers_pass() -> None:
    check_finite(1.0, 0.0, 0, None)


class Poison(Callback):
    """Make one norm weight infinite before step 6: the loss of that step is no number."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if pl_module.step == 6:
            self.before = trained_tensors(pl_module)
            with torch.no_grad():
                next(p for name, p in pl_module.named_parameters() if "norm" in name).fill_(INF)
            self.poisoned = trained_tensors(pl_module)


def test_divergence_stops_before_the_optimiser_and_never_reaches_a_checkpoint(tmp_path: Path) -> None:
    module, poison = tiny_module(), Poison()
    with pytest.raises(TrainingError, match=r"diverged at step 6: the loss is .*step-000004"):
        run(tmp_path, module, callbacks=[poison])
    after = trained_tensors(module)
    assert all(torch.equal(after[name], tensor) for name, tensor in poison.poisoned.items())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000004"]
    saved = AtomicCheckpointIO().load_checkpoint(tmp_path / "checkpoints/step-000004")
    assert all(bool(tensor.isfinite().all()) for tensor in saved["state_dict"].values())
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open() if "loss" in line][-1] == 6
