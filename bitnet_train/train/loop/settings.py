"""Settings of the loop: `trainer`, `optimizer`, `debug`. Those of `schedule` lie with its functions in `schedules`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bitnet_train.settings import require_allowed, setting

AUTO = "auto"
Precision = Literal["auto", "fp32", "bf16"]
Products = Literal["auto", "float", "forward", "integer"]


@dataclass(frozen=True)
class OptimConfig:
    """AdamW on what trains."""

    name: str = setting("adamw", "optimiser", choices=("adamw",))
    lr: float | str = setting(
        3e-4, "peak learning rate; auto = 2 * reach * mean|W| of the latents / steps", above=0, word=AUTO
    )
    reach: float = setting(3.0, "`lr=auto`: how far a latent can travel, in mean|W|; published runs: 2 to 5", above=0)
    scale_lr_factor: float = setting(
        1.0, "learning rate of learnable scales, as a factor on `optimizer.lr`", at_least=0
    )
    dense_lr_factor: float = setting(
        1.0, "learning rate of unconverted matrices that train, as a factor on `optimizer.lr`", at_least=0
    )
    betas: tuple[float, float] = setting((0.9, 0.95), "AdamW decay rates", at_least=0, below=1)
    weight_decay: float = setting(
        0.0, "weight decay of LoRA factors and unconverted matrices; latents and scales never decay", at_least=0
    )
    clip_norm: float = setting(1.0, "largest gradient norm; 0 = no clipping", at_least=0)

    def __post_init__(self) -> None:
        require_allowed(self, "optimizer")


@dataclass(frozen=True)
class TrainerConfig:
    """How long, how wide, on what."""

    max_steps: int = setting(
        300, "optimiser steps, unless `max_tokens`, `max_epochs` or `max_minutes` is given", at_least=1
    )
    max_tokens: int | None = setting(None, "tokens read, padding included; sets the steps", at_least=1)
    max_epochs: float | None = setting(None, "passes over the training rows, such as 3 or 0.5; sets the steps", above=0)
    max_minutes: float | None = setting(None, "minutes of training steps, timed at the start; sets the steps", above=0)
    batch_rows: int = setting(16, "rows per optimiser step", at_least=1)
    micro_rows: int = setting(16, "rows per forward pass", at_least=1)
    short_row_tokens: int | None = setting(
        None, "the first steps read pieces of so many tokens, a part of the context; null = rows", at_least=2
    )
    short_row_fraction: float = setting(0.8, "share of the steps that read pieces", at_least=0, at_most=1)
    precision: Precision = setting("auto", "arithmetic of training; auto = bf16 where a timing finds it faster")
    products: Products = setting(
        "auto",
        "products of 1-bit linears in training: all float, forward alone in integers, or all; auto = by a timing",
    )
    compile: bool = setting(
        False, "torch.compile of each decoder block in training: fused passes on a GPU, minutes before the first step"
    )
    checkpointing: bool = setting(
        False, "keep only the states between decoder blocks, and compute a block again in its backward pass"
    )
    validate_every_steps: int = setting(100, "steps between validations; 0 = none", at_least=0)
    samples: int = setting(
        5, "texts on `generate.prompt` for the report: at the start, on the way, at the end; 0 = none", at_least=0
    )
    save_every_steps: int = setting(100, "steps between checkpoints", at_least=1)
    log_every_steps: int = setting(1, "steps between lines of metrics", at_least=1)
    keep_last: int = setting(2, "checkpoints kept", at_least=1)
    keep_best: bool = setting(False, "keep the checkpoint of the lowest held-out figure too, and merge that one")
    patience: int | None = setting(
        None, "stop after so many validations in a row without improvement; null = never", at_least=1
    )
    skip_steps: int = setting(
        3, "steps in a row that are left out where loss or gradient is not finite; one more ends the run", at_least=0
    )
    divergence_nats: float | None = setting(
        3.0, "stop when the loss stays so many nats per token above its best; null = never", above=0
    )
    divergence_steps: int = setting(20, "steps in a row that it must stay there", at_least=1)
    seed: int = setting(0, "seed of data order and initial factors")
    resume: str = setting(
        "never",
        "auto = from the newest whole checkpoint of the run directory; or a checkpoint's path",
        path=True,
    )
    accelerator: Literal["auto", "cpu", "gpu"] = setting("auto", "device kind")
    devices: int = setting(1, "number of devices, of each machine; a process for each", at_least=1)
    num_nodes: int = setting(1, "machines, all with as many devices; torchrun or srun starts them", at_least=1)
    strategy: str = setting(
        "auto", "several processes: ddp = each holds the whole model, fsdp = each a share; auto = ddp on GPUs"
    )
    num_threads: int | None = setting(
        None,
        "CPU threads of a process; null = what torch takes, or one a core if faster; of several their share",
        at_least=1,
    )

    def __post_init__(self) -> None:
        require_allowed(self, "trainer")


@dataclass(frozen=True)
class DebugConfig:
    """Looking inside; BITNET_DEBUG=1 switches it on too."""

    enabled: bool = setting(False, "print and log per-layer telemetry")
    every_steps: int = setting(50, "steps between prints", at_least=1)

    def __post_init__(self) -> None:
        require_allowed(self, "debug")
