"""A step whose loss or gradient is no number changes nothing; several in a row end the run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from bitnet_train.errors import TrainingError
from bitnet_train.train.loop.odd_steps import ODD_STEPS_FILE, OddSteps
from tests.fixtures.tiny_run import run, tiny_module, trained_tensors


class Spoil(Callback):
    """Make the last states of some steps no numbers; keep what trained before the first and after the last of them."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if pl_module.step in self.steps:
            self.before = trained_tensors(pl_module)
            self.hook = pl_module.heads.student.body.register_forward_hook(_no_numbers)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if pl_module.step - 1 in self.steps:
            self.hook.remove()
            self.after = trained_tensors(pl_module)


def _no_numbers(body, given, outputs):
    outputs.last_hidden_state = outputs.last_hidden_state * math.nan
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 3, 5], ids=["first, which balances", "any", "balances"])
def test_a_step_that_is_not_finite_changes_nothing_and_the_run_goes_on(
    step: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, spoil = tiny_module(steps=8), Spoil(step)
    assert run(tmp_path, module, callbacks=[spoil], validate_every_steps=0).steps == 8
    assert all(torch.equal(spoil.after[name], tensor) for name, tensor in spoil.before.items())
    after = trained_tensors(module)
    assert any(not torch.equal(after[name], tensor) for name, tensor in spoil.before.items())
    assert all(bool(tensor.isfinite().all()) for tensor in after.values())
    what = "the loss is nan, so it is skipped and no weight changes"
    assert f"warning: step {step + 1}: {what}" in capsys.readouterr().err
    assert json.loads((tmp_path / ODD_STEPS_FILE).read_text()) == {"step": step + 1, "what": what, "rows": []}
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if line["loss"] is None] == [step + 1]


@pytest.mark.slow
@pytest.mark.parametrize("most", [0, 2])
def test_one_more_in_a_row_than_may_be_left_out_ends_the_run(most: int, tmp_path: Path) -> None:
    steps = range(2, 2 + most + 1)
    options = {"validate_every_steps": 0, "save_every_steps": 1, "keep_last": 1, "skip_steps": most}
    said = rf"diverged at step {steps[-1]}: the loss is nan.*Last good checkpoint: .*step-000002\."
    with pytest.raises(TrainingError, match=said):
        run(tmp_path, tiny_module(steps=6), callbacks=[Spoil(*steps)], **options)
    assert (tmp_path / "checkpoints" / "step-000002").is_dir(), "what is worth going back to stays"


@pytest.mark.slow
def test_a_good_step_between_begins_the_count_anew(tmp_path: Path) -> None:
    options = {"validate_every_steps": 0, "skip_steps": 1}
    assert run(tmp_path, tiny_module(steps=6), callbacks=[Spoil(1, 3, 5)], **options).steps == 6


def test_the_rows_of_a_step_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd"
    OddSteps(path=path, rows_of=lambda step: [step, 7]).tell(4, "the loss jumped")
    assert capsys.readouterr().err == "warning: step 5: the loss jumped (rows 4, 7).\n"
    assert json.loads(path.read_text()) == {"step": 5, "what": "the loss jumped", "rows": [4, 7]}
