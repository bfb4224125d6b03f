"""What was asked for and what this machine has, compared before anything is loaded."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch
from lightning.pytorch.strategies import StrategyRegistry

from bitnet_train.errors import ConfigError

STRATEGIES = ("auto", "fsdp", "ddp", "deepspeed")  # and Lightning's variants of the latter two, such as ddp_spawn
_ON_CPU = "What works here: `trainer.accelerator=cpu trainer.devices=1 trainer.strategy=auto`"


def num_gpus() -> int:
    """Return how many GPUs torch can use: CUDA and ROCm devices, or 1 for Apple's."""
    return torch.cuda.device_count() or int(torch.backends.mps.is_available())


def num_cores() -> int:
    """Return how many CPU cores, or hardware threads, this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_devices(accelerator: str, devices: int, strategy: str) -> None:
    """Raise ConfigError where this machine lacks what `trainer` names, saying what works instead."""
    _check_strategy(strategy)
    gpus = num_gpus()
    if accelerator == "gpu" and not gpus:
        raise ConfigError(f"`trainer.accelerator=gpu`: {_why_no_gpu()}. {_ON_CPU}.")
    if accelerator == "cpu" or not gpus:
        _check_cpu(accelerator, devices, strategy)
    elif devices > gpus:
        raise ConfigError(f"`trainer.devices={devices}`, and this machine has {gpus}. Set `trainer.devices={gpus}`.")


def check_shares(batch_rows: int, processes: int) -> None:
    """Raise ConfigError where the rows of a step cannot be shared by all processes, equally many for each."""
    if batch_rows % processes == 0:
        return
    more = -(-batch_rows // processes) * processes
    raise ConfigError(
        f"`trainer.batch_rows={batch_rows}` cannot be shared by {processes} processes: each takes equally many rows of "
        f"a step. Set `trainer.batch_rows={more}`, or `trainer.devices` to a number that divides {batch_rows}."
    )


def _check_cpu(accelerator: str, devices: int, strategy: str) -> None:
    if strategy.startswith("deepspeed"):
        why = "GPUs" if accelerator == "cpu" else f"GPUs, and here {_why_no_gpu()}"
        raise ConfigError(f"`trainer.strategy={strategy}` shards a model over {why}. {_ON_CPU}.")
    if devices > 1 and strategy == "auto":
        why = "on the CPU" if accelerator == "cpu" else f"on the CPU, for {_why_no_gpu()}"
        raise ConfigError(
            f"`trainer.devices={devices}` {why}: one process uses all cores already (`trainer.num_threads`). "
            f"{_ON_CPU}; processes that share the cores must be asked for by name: `trainer=ddp` or `trainer=fsdp`."
        )
    if devices > num_cores():
        raise ConfigError(
            f"`trainer.devices={devices}` on the CPU, and this machine has {num_cores()} cores for this process. Set "
            f"`trainer.devices={num_cores()}` or fewer. {_ON_CPU}."
        )


def _check_strategy(strategy: str) -> None:
    known = [name for name in StrategyRegistry.available_strategies() if name.startswith(STRATEGIES[2:])]
    if strategy not in (*STRATEGIES, *known):
        raise ConfigError(f"`trainer.strategy={strategy}` is not known. Allowed: {', '.join(STRATEGIES)}.")
    if strategy.startswith("deepspeed") and find_spec("deepspeed") is None:
        raise ConfigError(f"`trainer.strategy={strategy}` needs the package deepspeed. Run `pip install deepspeed`.")


def _why_no_gpu() -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built for the CPU alone"
    return "torch sees no GPU (`nvidia-smi` shows what the driver sees)"
