"""What was asked for and what this machine has, compared before anything is loaded."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from bitnet_train.errors import ConfigError

STRATEGIES = ("auto", "ddp", "fsdp", "deepspeed")  # and Lightning's variants of them, such as ddp_spawn
_SHARDING = ("fsdp", "deepspeed")
_ON_CPU = "What works here: `trainer.accelerator=cpu trainer.devices=1 trainer.strategy=auto`"


def num_gpus() -> int:
    """Return how many GPUs torch can use: CUDA and ROCm devices, or 1 for Apple's."""
    return torch.cuda.device_count() or int(torch.backends.mps.is_available())


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


def _check_cpu(accelerator: str, devices: int, strategy: str) -> None:
    if strategy.startswith(_SHARDING):
        why = "GPUs" if accelerator == "cpu" else f"GPUs, and here {_why_no_gpu()}"
        raise ConfigError(f"`trainer.strategy={strategy}` shards a model over {why}. {_ON_CPU}.")
    if devices > 1 and not (accelerator == "cpu" and strategy.startswith("ddp")):
        why = "on the CPU" if accelerator == "cpu" else f"on the CPU, for {_why_no_gpu()}"
        raise ConfigError(
            f"`trainer.devices={devices}` {why}: one process uses all cores already (`trainer.num_threads`). "
            f"{_ON_CPU}; processes that share the cores must be asked for by name: "
            "`trainer.accelerator=cpu trainer.strategy=ddp`."
        )


def _check_strategy(strategy: str) -> None:
    if not strategy.startswith(STRATEGIES):
        raise ConfigError(f"`trainer.strategy={strategy}` is not known. Allowed: {', '.join(STRATEGIES)}.")
    if strategy.startswith("deepspeed") and find_spec("deepspeed") is None:
        raise ConfigError(f"`trainer.strategy={strategy}` needs the package deepspeed. Run `pip install deepspeed`.")


def _why_no_gpu() -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built for the CPU alone"
    return "torch sees no GPU (`nvidia-smi` shows what the driver sees)"
