"""Who started this process: nobody, or a launcher that started others like it.

Lightning guesses that from single variables. Here a launcher counts only where all it sets for a process are there
(`launchers`), and it must have started `trainer.devices` processes on each of `trainer.num_nodes` machines; all else is
ignored.
"""

from __future__ import annotations

from lightning.fabric.plugins import environments
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

from bitnet_train.errors import ConfigError
from bitnet_train.train.loop.launchers import Launcher, launcher


def cluster_environment(devices: int, num_nodes: int = 1) -> ClusterEnvironment:
    """Return the environment of the launcher that started `devices` processes on each node, else Lightning's own.

    That starts the processes of one machine itself. Raises ConfigError where a launcher started another number: every
    one of them would be a run of its own; and where nothing has started those of other machines.
    """
    found = launcher()
    if found is None:
        if num_nodes > 1:
            raise ConfigError(
                f"`trainer.num_nodes={num_nodes}`, and nothing has started processes on other machines. Start the run "
                f"with `torchrun --nnodes {num_nodes} --nproc-per-node {devices}` or `srun`, or set "
                "`trainer.num_nodes=1`."
            )
        if devices == 1:
            # What a leftover RANK or SLURM_PROCID said at import would silence every file.
            setattr(rank_zero_only, "rank", 0)  # noqa: B010
        return LightningEnvironment()
    if found.num_processes() != devices * num_nodes:
        nodes = f" trainer.num_nodes={num_nodes}" if num_nodes > 1 else ""
        raise ConfigError(
            f"`trainer.devices={devices}{nodes}`, but {found.name} started {found.num_processes()} processes like this "
            f"one ({found.size}={found.num_processes()}), all on the same run. Set `trainer.devices` to their "
            f"number (on each of `trainer.num_nodes` machines), or start one. "
            f"If they are left over from another job: `env -u {found.size} bitnet-train ...`."
        )
    return _environment_of(found)


def _environment_of(found: Launcher) -> ClusterEnvironment:
    try:
        return getattr(environments, found.environment)()
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise ConfigError(f"Lightning cannot use what {found.name} set for this process: {error}") from error
