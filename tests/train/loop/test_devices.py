"""What a machine lacks is refused before anything is loaded, with what works there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bitnet_train.__main__ import main
from bitnet_train.errors import ConfigError
from bitnet_train.train.loop import devices
from bitnet_train.train.loop.devices import check_devices, check_shares

REFUSED = [  # accelerator, devices, strategy, GPUs of the machine, part of the message
    ("gpu", 1, "auto", 0, "`trainer.accelerator=gpu`: torch"),
    ("cpu", 4, "ddp", 8, "`trainer.devices=4` on the CPU, and this machine has 2 cores"),
    ("auto", 4, "fsdp", 0, "Set `trainer.devices=2` or fewer"),
    ("auto", 4, "auto", 0, "`trainer.devices=4` on the CPU"),
    ("cpu", 4, "auto", 8, "`trainer.devices=4` on the CPU"),
    ("gpu", 4, "ddp", 2, "`trainer.devices=4`, and this machine has 2"),
    ("auto", 2, "auto", 1, "Set `trainer.devices=1`"),
    ("gpu", 1, "xla", 1, "Allowed: auto, fsdp, ddp, deepspeed"),
    ("gpu", 1, "ddpp", 1, "`trainer.strategy=ddpp` is not known"),
    ("gpu", 1, "fsdp_cpu_offload", 1, "`trainer.strategy=fsdp_cpu_offload` is not known"),
    ("gpu", 1, "deepspeed_stage_2", 1, "pip install deepspeed"),
]
ALLOWED = [
    ("auto", 1, "auto", 0),
    ("cpu", 1, "auto", 0),
    ("cpu", 2, "ddp", 0),
    ("auto", 2, "ddp", 0),
    ("auto", 2, "fsdp", 0),
    ("gpu", 1, "auto", 1),
    ("gpu", 2, "fsdp", 2),
    ("auto", 8, "ddp_spawn", 8),
]


@pytest.mark.parametrize(("accelerator", "count", "strategy", "gpus", "part"), REFUSED)
def test_what_the_machine_lacks_is_refused_with_what_works(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, count: int, strategy: str, gpus: int, part: str
) -> None:
    monkeypatch.setattr(devices, "num_gpus", lambda: gpus)
    monkeypatch.setattr(devices, "num_cores", lambda: 2)
    with pytest.raises(ConfigError) as caught:
        check_devices(accelerator, count, strategy)
    assert part in str(caught.value)
    assert gpus > 0 or "What works here: `trainer.accelerator=cpu" in str(caught.value)


@pytest.mark.parametrize(("accelerator", "count", "strategy", "gpus"), ALLOWED)
def test_what_the_machine_has_is_let_through(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, count: int, strategy: str, gpus: int
) -> None:
    monkeypatch.setattr(devices, "num_gpus", lambda: gpus)
    monkeypatch.setattr(devices, "num_cores", lambda: 2)
    check_devices(accelerator, count, strategy)


@pytest.mark.slow
@pytest.mark.skipif(devices.num_gpus() > 0, reason="this machine has a GPU")
@pytest.mark.parametrize("verb", [["train"], ["train", "--dry-run"], ["run"]], ids=" ".join)
def test_a_gpu_that_is_not_there_is_wrong_usage_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([verb[0], "quickstart", *verb[1:], "trainer=gpu_bf16", "model.source=nobody/nothing"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ConfigError: `trainer.accelerator=gpu`: torch ")
    assert "unexpected" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rows", "processes", "more"), [(3, 2, 4), (16, 5, 20), (1, 8, 8)])
def test_rows_that_processes_cannot_share_are_refused_with_a_number_that_they_can(
    rows: int, processes: int, more: int
) -> None:
    with pytest.raises(ConfigError, match=rf"`trainer\.batch_rows={rows}` cannot .* Set `trainer\.batch_rows={more}`"):
        check_shares(rows, processes)
    check_shares(more, processes)


@pytest.mark.slow
def test_an_uneven_batch_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.batch_rows=3", "model.source=nobody/nothing"]
    assert main(["train", "quickstart", *words]) == 2
    assert capsys.readouterr().err.startswith("ConfigError: `trainer.batch_rows=3` cannot be shared by 2 processes")
    assert list(tmp_path.iterdir()) == []


def test_gpus_are_counted_as_torch_does() -> None:
    assert devices.num_gpus() == (torch.cuda.device_count() or int(torch.backends.mps.is_available()))
