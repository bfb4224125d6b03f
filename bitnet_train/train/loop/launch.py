"""Who started this process: nobody, or a launcher that started others like it.

Lightning guesses that from single variables, and those outlive what set them: `SLURM_NTASKS` is there in every shell of
a job, `TORCHELASTIC_RUN_ID` and `RANK` in whatever a launched process starts. Here a launcher counts only where all it
sets for a process are there, and it must have started as many processes as `trainer.devices`; all else is ignored.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from lightning.fabric.plugins import environments
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

from bitnet_train.errors import ConfigError


@dataclass(frozen=True)
class Launcher:
    """One row: its name, the variable with the number of processes, others it sets, Lightning's class for it."""

    name: str
    size: str
    marks: tuple[str, ...]
    environment: str

    def num_processes(self) -> int:
        """Return how many processes it started; 1 where it started none."""
        size = os.environ.get(self.size, "")
        is_whole = all(os.environ.get(mark, "").strip() for mark in self.marks)
        return int(size) if is_whole and size.strip().isdecimal() else 1


LAUNCHERS = (
    Launcher("torchrun", "WORLD_SIZE", ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK"), "TorchElasticEnvironment"),
    Launcher("srun", "SLURM_STEP_NUM_TASKS", ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"), "SLURMEnvironment"),
    Launcher("jsrun", "JSM_NAMESPACE_SIZE", ("LSB_JOBID", "JSM_NAMESPACE_RANK"), "LSFEnvironment"),
    Launcher("mpirun", "OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_RANK",), "MPIEnvironment"),
)


def cluster_environment(devices: int) -> ClusterEnvironment:
    """Return the environment of the launcher that started `devices` processes, else Lightning's own, which starts them.

    Raises ConfigError where a launcher started another number: every one of them would be a run of its own.
    """
    launcher = next((launcher for launcher in LAUNCHERS if launcher.num_processes() > 1), None)
    if launcher is None:
        if devices == 1:
            # What a leftover RANK or SLURM_PROCID said at import would silence every file.
            setattr(rank_zero_only, "rank", 0)  # noqa: B010
        return LightningEnvironment()
    if launcher.num_processes() != devices:
        raise ConfigError(
            f"`trainer.devices={devices}`, but {launcher.name} started {launcher.num_processes()} processes like this "
            f"one ({launcher.size}={launcher.num_processes()}), all on the same run. Set `trainer.devices` to their "
            f"number, or start one. If they are left over from another job: `env -u {launcher.size} bitnet-train ...`."
        )
    return _environment_of(launcher)


def _environment_of(launcher: Launcher) -> ClusterEnvironment:
    try:
        return getattr(environments, launcher.environment)()
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise ConfigError(f"Lightning cannot use what {launcher.name} set for this process: {error}") from error
