"""Whatever variables other jobs left behind, one process trains as one process; real launchers are obeyed."""

from __future__ import annotations

import json
from pathlib import Path
from socket import gethostname

import pytest
from lightning.fabric.plugins.environments import (
    LightningEnvironment,
    LSFEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.fabric.utilities.rank_zero import rank_zero_only

from bitnet_train.errors import ConfigError
from bitnet_train.train.loop.launch import cluster_environment
from bitnet_train.train.loop.launchers import LAUNCHERS, Launcher
from tests.fixtures.tiny_run import run, tiny_module

SLURM_JOB = {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "mine", "SLURM_PROCID": "0"}
LEFTOVERS = {
    "SLURM's of a job": SLURM_JOB,
    "SLURM's of a task": SLURM_JOB | {"SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_STEP_NUM_TASKS": "1"},
    "torchrun's name alone": {"TORCHELASTIC_RUN_ID": "x"},
    "torchrun's of one process": {
        "TORCHELASTIC_RUN_ID": "x",
        "WORLD_SIZE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    },
    "LSF's": {
        "LSB_JOBID": "7",
        "LSB_DJOB_RANKFILE": "/nowhere",
        "LSB_DJOB_NUMPROC": "4",
        "JSM_NAMESPACE_LOCAL_RANK": "0",
        "JSM_NAMESPACE_SIZE": "4",
    },
    "MPI's": {"PMI_SIZE": "4", "PMI_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"},
    "Kubeflow's": {"MASTER_ADDR": "nowhere", "MASTER_PORT": "1", "WORLD_SIZE": "4", "RANK": "2"},
    "sizes that are no numbers": SLURM_JOB | {"SLURM_LOCALID": "3", "SLURM_STEP_NUM_TASKS": "many"},
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for launcher in LAUNCHERS:
        for name in (launcher.size, launcher.rank, *launcher.marks):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rank_zero_only, "rank", rank_zero_only.rank)


def started(launcher: Launcher, size: int) -> dict[str, str]:
    return {launcher.size: str(size)} | dict.fromkeys((launcher.rank, *launcher.marks), "0")


@pytest.mark.slow
@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_one_process_trains_whatever_was_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leftover: str
) -> None:
    for name, value in LEFTOVERS[leftover].items():
        monkeypatch.setenv(name, value)
    rank_zero_only.rank = 2  # as Lightning reads it from RANK or SLURM_PROCID when it is imported
    result = run(tmp_path, tiny_module(steps=1), validate_every_steps=0)
    assert result.checkpoint.is_dir()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open()] == [1]


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda launcher: launcher.name)
def test_processes_that_a_launcher_started_must_be_as_many_as_the_devices(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in started(launcher, 4).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=rf"`trainer\.devices=1`, but {launcher.name} started 4 .*env -u"):
        cluster_environment(1)


@pytest.mark.parametrize(
    ("name", "kind"), [("torchrun", TorchElasticEnvironment), ("srun", SLURMEnvironment), ("jsrun", LSFEnvironment)]
)
def test_a_launcher_of_as_many_processes_is_obeyed(
    name: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (launcher,) = (launcher for launcher in LAUNCHERS if launcher.name == name)
    (tmp_path / "ranks").write_text(f"batch\n{gethostname()}\n{gethostname()}\n")
    further = {"LSB_DJOB_RANKFILE": str(tmp_path / "ranks"), "JSM_NAMESPACE_LOCAL_RANK": "0", "SLURM_NTASKS": "2"}
    further["SLURM_NTASKS_PER_NODE"] = "2"
    for variable, value in (started(launcher, 2) | further).items():
        monkeypatch.setenv(variable, value)
    assert isinstance(cluster_environment(2), kind)


def test_processes_on_several_machines_are_as_many_as_devices_times_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    (launcher,) = (launcher for launcher in LAUNCHERS if launcher.name == "torchrun")
    for variable, value in started(launcher, 4).items():
        monkeypatch.setenv(variable, value)
    assert isinstance(cluster_environment(2, num_nodes=2), TorchElasticEnvironment)
    with pytest.raises(ConfigError, match=r"`trainer\.devices=4 trainer\.num_nodes=2`, but torchrun started 4"):
        cluster_environment(4, num_nodes=2)


def test_machines_that_nothing_was_started_on_are_refused_with_what_starts_them() -> None:
    with pytest.raises(ConfigError, match=r"torchrun --nnodes 2 --nproc-per-node 8"):
        cluster_environment(8, num_nodes=2)


def test_what_lightning_refuses_of_a_launcher_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    (launcher,) = (launcher for launcher in LAUNCHERS if launcher.name == "srun")
    for variable, value in (started(launcher, 2) | {"SLURM_NTASKS": "2"}).items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=r"what srun set .*ntasks-per-node=2"):
        cluster_environment(2)


def test_without_a_launcher_lightning_starts_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert isinstance(cluster_environment(2), LightningEnvironment)
