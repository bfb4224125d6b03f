"""A run whose process was ended from outside goes on to the weights of one that was left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bitnet_train.__main__ import main
from tests.fixtures.small_runs import small

WORDS = ["train", "smollm2_binary_lora", "--quiet"]
LENGTH = ["trainer.max_steps=12", "trainer.save_every_steps=3", "trainer.validate_every_steps=5"]

pytestmark = pytest.mark.slow


def merged(run_dir: Path) -> dict[str, Tensor]:
    assert main(["merge", str(run_dir), "--quiet"]) == 0
    return load_file(run_dir / "merged" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Return the weights of the run that nobody interrupts."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert main([*WORDS, *small(run_dir, *LENGTH)]) == 0
    return merged(run_dir)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(
    how: signal.Signals, whole: dict[str, Tensor], tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    process = subprocess.Popen([sys.executable, "-m", "bitnet_train", *WORDS, *small(cut, *LENGTH)])
    _wait_for_a_checkpoint(cut, process)
    process.send_signal(how)
    code = process.wait(timeout=120)
    assert code == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how], "ended before its last step"
    assert not (cut / "checkpoints" / "step-000012").exists()
    assert main(["train", str(cut), "--quiet"]) == 0
    resumed = merged(cut)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def _wait_for_a_checkpoint(run_dir: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not list((run_dir / "checkpoints").glob("step-??????")):
        assert process.poll() is None, "the run ended on its own"
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.02)
