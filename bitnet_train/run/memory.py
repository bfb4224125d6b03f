"""What a run of a configuration takes in memory, and whether its devices have it (`train.loop.memory`)."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from bitnet_train.config import Config
from bitnet_train.run.machine import products_of
from bitnet_train.train.loop.activations import kept_bytes
from bitnet_train.train.loop.machine import device_of
from bitnet_train.train.loop.memory import SHARDED, Memory, memory, room
from bitnet_train.train.loop.module import BitLightningModule


def memory_of(config: Config, module: BitLightningModule) -> Memory:
    """Return what each device holds; the precision is settled."""
    trainer, tokens = config.trainer, config.data.context_tokens
    bf16 = trainer.precision == "bf16"
    return memory(
        module,
        trainer.micro_rows * tokens,
        device_of(trainer.accelerator),
        bf16=bf16,
        products=products_of(config),
        kept=kept_bytes(module.student, min(trainer.micro_rows, trainer.batch_rows), tokens, bf16=bf16),
        checkpointed=trainer.checkpointing,
        accumulates=trainer.batch_rows > trainer.micro_rows,
        shards=trainer.devices if trainer.strategy.startswith(SHARDED) else 1,
    )


def tell_memory(config: Config, module: BitLightningModule, console: Console) -> dict[str, Any]:
    """Print what a run takes and whether it fits; return the bytes of each part, of the most, of what is free."""
    found, where = memory_of(config, module), room(device_of(config.trainer.accelerator))
    shared = config.trainer.devices if device_of(config.trainer.accelerator).type == "cpu" else 1
    needed = shared * found.most
    each = "" if config.trainer.devices == 1 else f", on each of {config.trainer.devices} devices"
    console.print(f"Memory: {found.describe()}{each}. {where.verdict(needed)}", soft_wrap=True)
    return {
        **found.parts(),
        "most": found.most,
        "free": where.free,
        "fits": None if where.free is None else needed <= where.free,
    }
