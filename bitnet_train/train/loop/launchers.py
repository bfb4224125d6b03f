"""Which launcher started this process beside others, if one did. No torch here: it is asked before anything is loaded.

A launcher counts only where all it sets for a process are there: single variables outlive what set them. `SLURM_NTASKS`
is there in every shell of a job, `TORCHELASTIC_RUN_ID` and `RANK` in whatever a launched process starts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launcher:
    """One row: its name, the variables with the number of processes and with this one's, others, Lightning's class."""

    name: str
    size: str
    rank: str
    marks: tuple[str, ...]
    environment: str

    def num_processes(self) -> int:
        """Return how many processes it started; 1 where it started none."""
        size = os.environ.get(self.size, "")
        is_whole = all(os.environ.get(mark, "").strip() for mark in (self.rank, *self.marks))
        return int(size) if is_whole and size.strip().isdecimal() else 1

    def number(self) -> int:
        """Return the number of this process among them: 0 for the first."""
        return int(os.environ[self.rank])


LAUNCHERS = (
    Launcher("torchrun", "WORLD_SIZE", "RANK", ("TORCHELASTIC_RUN_ID", "LOCAL_RANK"), "TorchElasticEnvironment"),
    Launcher("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", ("SLURM_NTASKS", "SLURM_LOCALID"), "SLURMEnvironment"),
    Launcher("jsrun", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", ("LSB_JOBID",), "LSFEnvironment"),
    Launcher("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", (), "MPIEnvironment"),
)


def launcher() -> Launcher | None:
    """Return what started this process and others, or None."""
    return next((row for row in LAUNCHERS if row.num_processes() > 1), None)
