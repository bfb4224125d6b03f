from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from bitnet_train.errors import ConfigError, TrainingError
from bitnet_train.train.loop.checkpoint import AtomicCheckpointIO
from bitnet_train.train.loop.checkpoint_manifest import list_checkpoints
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.optim import DECAYED
from bitnet_train.train.loop.resume import load_student
from bitnet_train.train.loop.signals import Interrupted
from bitnet_train.train.losses.settings import LossConfig
from tests.fixtures import tiny_run
from tests.fixtures.tiny_run import SAVE_EVERY, STEPS, STILL, DieAt, Rows, llama, run, tiny_module, trained_tensors

SCRIPT = Path(tiny_run.__file__)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """The run that nothing interrupted."""
    run_dir, module = tmp_path_factory.mktemp("whole"), tiny_module()
    run(run_dir, module)
    return run_dir, trained_tensors(module)


def copied(run_dir: Path, to: Path, step: int) -> str:
    """Copy the checkpoints of a run, which stay the run's own, and return the path of one of them."""
    return str(shutil.copytree(run_dir / "checkpoints", to / "checkpoints") / f"step-{step:06d}")


def losses_by_step(run_dir: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").open()]
    return {line["step"]: {k: v for k, v in line.items() if k != "tokens_per_s"} for line in lines if "loss" in line}


def killed(run_dir: Path, step: int, name: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(run_dir), "--die-at", str(step), "--signal", name]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGKILL", -signal.SIGKILL), ("SIGTERM", 143)])
def test_a_run_killed_at_any_step_resumes_bit_for_bit(tmp_path: Path, whole, name: str, code: int) -> None:
    step = random.Random().randrange(SAVE_EVERY + 1, STEPS - 1)
    done = killed(tmp_path, step, name)
    assert done.returncode == code, done.stderr[-3000:]
    last = list_checkpoints(tmp_path / "checkpoints")[-1]
    expected = step // SAVE_EVERY * SAVE_EVERY if name == "SIGKILL" else step + 1
    assert last.name == f"step-{expected:06d}"
    earlier = AtomicCheckpointIO().load_checkpoint(last)["progress"]["seconds"]

    module = tiny_module()
    result = run(tmp_path, module, resume="auto")
    assert result.steps == STEPS
    assert result.seconds > module.seconds_before == earlier > 0
    for key, tensor in trained_tensors(module).items():
        assert torch.equal(tensor, whole[1][key]), f"{key} differs after {name} at step {step}"
    assert losses_by_step(tmp_path) == losses_by_step(whole[0])


@pytest.mark.slow
def test_the_run_consumes_random_numbers_or_the_tests_above_prove_nothing(tmp_path: Path, whole) -> None:
    module = tiny_module()
    module.seed += 1
    run(tmp_path, module)
    assert not all(torch.equal(tensor, whole[1][key]) for key, tensor in trained_tensors(module).items())


class Draw(Callback):
    """Use up random numbers between the steps, as a loader that starts workers does."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        torch.rand(3)


@pytest.mark.slow
def test_random_numbers_drawn_between_steps_change_nothing(tmp_path: Path, whole) -> None:
    module = tiny_module()
    run(tmp_path, module, callbacks=[Draw()])
    assert all(torch.equal(tensor, whole[1][key]) for key, tensor in trained_tensors(module).items())


@pytest.mark.slow
def test_a_checkpoint_loads_into_a_bare_student(whole) -> None:
    folder, student = whole[0] / "checkpoints" / f"step-{STEPS:06d}", tiny_module().student
    assert load_student(student, folder)["step"] == STEPS
    loaded = dict(student.named_parameters())
    assert all(torch.equal(loaded[key.removeprefix("student.")], tensor) for key, tensor in whole[1].items())
    with pytest.raises(TrainingError, match="was not made by this configuration"):
        load_student(llama(), folder)


@pytest.mark.slow
def test_a_checkpoint_holds_what_trains_and_no_frozen_weight(whole) -> None:
    saved = AtomicCheckpointIO().load_checkpoint(whole[0] / "checkpoints" / f"step-{STEPS:06d}")
    assert saved["state_dict"].keys() == whole[1].keys() | {"hidden_balance"}
    assert all(torch.equal(saved["state_dict"][key], tensor) for key, tensor in whole[1].items())
    assert saved["Rows"] == {"next_batch": STEPS}
    assert saved["generators"].keys() == {"python", "numpy", "torch", "cuda"}
    assert saved["optimizer_states"][0]["state"]


@pytest.mark.slow
def test_resuming_a_finished_run_trains_nothing_and_returns_its_figures(whole) -> None:
    module = tiny_module()
    before = (whole[0] / "metrics.jsonl").read_text()
    result = run(whole[0], module, resume="auto")
    assert (result.steps, result.checkpoint.name) == (STEPS, f"step-{STEPS:06d}")
    assert result.metrics["loss"] == losses_by_step(whole[0])[STEPS]["loss"]
    generators = AtomicCheckpointIO().load_checkpoint(result.checkpoint)["generators"]
    assert torch.equal(torch.get_rng_state(), generators["torch"])
    assert list(random.getstate()[1]) == generators["python"][1]
    assert all(torch.equal(tensor, whole[1][key]) for key, tensor in trained_tensors(module).items())
    assert (whole[0] / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_an_explicit_checkpoint_is_resumed(tmp_path: Path, whole) -> None:
    module = tiny_module()
    run(tmp_path, module, resume=copied(whole[0], tmp_path, 8))
    assert all(torch.equal(tensor, whole[1][key]) for key, tensor in trained_tensors(module).items())


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_typed_and_says_how_to_go_on(tmp_path: Path, signum: signal.Signals, code: int) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(Interrupted) as caught:
        run(tmp_path, tiny_module(), callbacks=[DieAt(2, signum)])
    assert caught.value.code == code
    assert caught.value.checkpoint == tmp_path / "checkpoints" / "step-000003"
    assert f"{signum.name} after step 3" in str(caught.value)
    assert "trainer.resume=auto" in str(caught.value)
    assert signal.getsignal(signum) is before


class EndsAt(Rows):
    """Rows that cannot be read from a batch on."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def train_dataloader(self):
        for index, batch in enumerate(super().train_dataloader()):
            if index == self.batch:
                raise OSError("the disk with the rows is gone")
            yield batch


@pytest.mark.slow
def test_rows_that_cannot_be_read_end_a_run_with_all_its_steps_saved(tmp_path: Path, whole) -> None:
    with pytest.raises(OSError, match="the disk with the rows") as caught:
        run(tmp_path, tiny_module(), data=EndsAt(6))
    saved = list_checkpoints(tmp_path / "checkpoints")[-1]
    steps = int(saved.name.split("-")[1])
    assert SAVE_EVERY < steps <= 6
    assert caught.value.__notes__ == [f"Saved {saved}; continue with `trainer.resume=auto`."]
    module = tiny_module()
    run(tmp_path, module, data=EndsAt(10 * STEPS), resume="auto")
    assert all(torch.equal(tensor, whole[1][key]) for key, tensor in trained_tensors(module).items())


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(tmp_path: Path, whole) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, tiny_module(), callbacks=[DieAt(9, signal.SIGTERM)])
    newest = list_checkpoints(tmp_path / "checkpoints")[-1] / "state.pt"
    newest.write_bytes(newest.read_bytes()[:-5])
    module = tiny_module()
    with pytest.warns(UserWarning, match="Skipping a checkpoint that cannot be used.*step-000010"):
        run(tmp_path, module, resume="auto")
    assert all(torch.equal(tensor, whole[1][key]) for key, tensor in trained_tensors(module).items())


def test_never_refuses_to_mix_two_runs(whole) -> None:
    with pytest.raises(ConfigError, match=r"`trainer\.resume=never`, but .* has checkpoints of an earlier run"):
        run(whole[0], tiny_module())


@pytest.mark.slow
def test_a_checkpoint_of_another_adapter_is_refused_by_name(tmp_path: Path, whole) -> None:
    other = BitLightningModule(llama(), None, max_steps=STEPS, micro_rows=3, loss=LossConfig(kl=0.0, ce=1.0))
    with pytest.raises(TrainingError, match=r"belongs to another run.*First: `"):
        run(tmp_path, other, resume=copied(whole[0], tmp_path, STEPS))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp16"}, r"`trainer\.precision=fp16`.*Allowed: auto, fp32, bf16"),
        ({"keep_last": 0}, r"`trainer\.keep_last=0` is out of range: it must be 1 or more"),
        ({"resume": "atuo"}, r"`trainer\.resume=atuo` is neither"),
    ],
)
def test_wrong_settings_are_refused_before_training(tmp_path: Path, options: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(tmp_path, tiny_module(), **options)


@pytest.mark.slow
def test_nothing_is_written_outside_the_run_directory_and_little_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run(tmp_path / "run", tiny_module(steps=2), quiet=False)
    assert list(elsewhere.iterdir()) == []
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", "metrics.jsonl"]
    said = capfd.readouterr()
    assert said.out == ""
    assert [line.split()[0] for line in said.err.splitlines() if "Warning" not in line and "warn" not in line] == [
        "step"
    ] * 2


@pytest.mark.slow
def test_a_continued_run_goes_by_its_own_rates_and_keeps_the_moments(tmp_path: Path, whole) -> None:
    module = tiny_module(lr=STILL)
    module.optim = replace(module.optim, weight_decay=0.25, betas=(0.8, 0.9))
    run(tmp_path, module, resume=copied(whole[0], tmp_path, 8))
    saved = AtomicCheckpointIO().load_checkpoint(whole[0] / "checkpoints" / "step-000008")
    assert all(torch.equal(t, saved["state_dict"][name]) for name, t in trained_tensors(module).items())
    moments = AtomicCheckpointIO().load_checkpoint(tmp_path / "checkpoints" / f"step-{STEPS:06d}")["optimizer_states"]
    assert {float(state["step"]) for state in moments[0]["state"].values()} == {float(STEPS)}
    groups = {group["name"]: group for group in moments[0]["param_groups"]}
    assert {(group["peak_lr"], *group["betas"]) for group in groups.values()} == {(STILL, 0.8, 0.9)}
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        name: 0.25 if name in DECAYED else 0.0 for name in groups
    }
    assert "adapters" in groups


@pytest.mark.slow
def test_another_length_is_continued_with_a_warning_and_a_shorter_one_refused(tmp_path: Path, whole) -> None:
    last = copied(whole[0], tmp_path, STEPS)
    with pytest.warns(UserWarning, match=f"`trainer.max_steps` was {STEPS} and is {STEPS + 1} now"):
        assert run(tmp_path, tiny_module(steps=STEPS + 1), resume=last).steps == STEPS + 1
    with pytest.raises(ConfigError, match=f"has {STEPS} steps already"):
        run(tmp_path, tiny_module(steps=STEPS - 1), resume=last)
