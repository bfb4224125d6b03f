"""What a machine lacks is refused before anything is loaded, with what works there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bitnet_train.errors import ConfigError
from bitnet_train.train.loop import devices
from bitnet_train.train.loop.devices import check_devices

REFUSED = [  # accelerator, devices, strategy, GPUs of the machine, part of the message
    ("gpu", 1, "auto", 0, "`trainer.accelerator=gpu`: torch"),
    ("auto", 1, "fsdp", 0, "`trainer.strategy=fsdp` shards a model over GPUs"),
    ("auto", 1, "fsdp_cpu_offload", 0, "`trainer.strategy=fsdp_cpu_offload` shards"),
    ("cpu", 1, "fsdp", 8, "`trainer.strategy=fsdp` shards"),
    ("auto", 4, "auto", 0, "`trainer.devices=4` on the CPU"),
    ("cpu", 4, "auto", 8, "`trainer.devices=4` on the CPU"),
    ("auto", 4, "ddp", 0, "`trainer.devices=4` on the CPU"),
    ("gpu", 4, "ddp", 2, "`trainer.devices=4`, and this machine has 2"),
    ("auto", 2, "auto", 1, "Set `trainer.devices=1`"),
    ("gpu", 1, "xla", 1, "Allowed: auto, ddp, fsdp, deepspeed"),
    ("gpu", 1, "deepspeed_stage_2", 1, "pip install deepspeed"),
]
ALLOWED = [
    ("auto", 1, "auto", 0),
    ("cpu", 1, "auto", 0),
    ("cpu", 2, "ddp", 0),
    ("gpu", 1, "auto", 1),
    ("gpu", 2, "fsdp", 2),
    ("auto", 8, "ddp_spawn", 8),
]


@pytest.mark.parametrize(("accelerator", "count", "strategy", "gpus", "part"), REFUSED)
def test_what_the_machine_lacks_is_refused_with_what_works(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, count: int, strategy: str, gpus: int, part: str
) -> None:
    monkeypatch.setattr(devices, "num_gpus", lambda: gpus)
    with pytest.raises(ConfigError) as caught:
        check_devices(accelerator, count, strategy)
    assert part in str(caught.value)
    assert gpus > 0 or "What works here: `trainer.accelerator=cpu" in str(caught.value)


@pytest.mark.parametrize(("accelerator", "count", "strategy", "gpus"), ALLOWED)
def test_what_the_machine_has_is_let_through(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, count: int, strategy: str, gpus: int
) -> None:
    monkeypatch.setattr(devices, "num_gpus", lambda: gpus)
    check_devices(accelerator, count, strategy)


@pytest.mark.slow
@pytest.mark.skipif(devices.num_gpus() > 0, reason="this machine has a GPU")
@pytest.mark.parametrize("verb", [["train"], ["train", "--dry-run"], ["run"]], ids=" ".join)
def test_a_gpu_that_is_not_there_is_wrong_usage_and_leaves_no_folder(tmp_path: Path, verb: list[str]) -> None:
    command = [sys.executable, "-m", "bitnet_train", verb[0], "quickstart", *verb[1:], "trainer=gpu_bf16"]
    command.append("model.source=nobody/nothing")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 2
    assert done.stderr.startswith("ConfigError: `trainer.accelerator=gpu`: torch ")
    assert "unexpected" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_gpus_are_counted_as_torch_does() -> None:
    assert devices.num_gpus() == (torch.cuda.device_count() or int(torch.backends.mps.is_available()))
