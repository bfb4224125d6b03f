"""Who started this process: nobody, or a launcher that started others like it.

Lightning guesses that from single variables. Here a launcher counts only where all it sets for a process are there
(`launchers`), and it must have started as many processes as `trainer.devices`; all else is ignored.
"""

from __future__ import annotations

from lightning.fabric.plugins import environments
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

from bitnet_train.errors import ConfigError
from bitnet_train.train.loop.launchers import Launcher, launcher


def cluster_environment(devices: int) -> ClusterEnvironment:
    """Return the environment of the launcher that started `devices` processes, else Lightning's own, which starts them.

    Raises ConfigError where a launcher started another number: every one of them would be a run of its own.
    """
    found = launcher()
    if found is None:
        if devices == 1:
            # What a leftover RANK or SLURM_PROCID said at import would silence every file.
            setattr(rank_zero_only, "rank", 0)  # noqa: B010
        return LightningEnvironment()
    if found.num_processes() != devices:
        raise ConfigError(
            f"`trainer.devices={devices}`, but {found.name} started {found.num_processes()} processes like this "
            f"one ({found.size}={found.num_processes()}), all on the same run. Set `trainer.devices` to their "
            f"number, or start one. If they are left over from another job: `env -u {found.size} bitnet-train ...`."
        )
    return _environment_of(found)


def _environment_of(found: Launcher) -> ClusterEnvironment:
    try:
        return getattr(environments, found.environment)()
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise ConfigError(f"Lightning cannot use what {found.name} set for this process: {error}") from error
