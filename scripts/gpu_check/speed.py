"""A training step of the shape of SmolLM2-135M on the device: `nn.Linear`, the usual spelling of a quantiser, and ours.

The kinds, the model and the step are those of `scripts.bench.train_step`: forward, cross-entropy, backward, clipping
and AdamW, in bf16. On a GPU the blocks of every kind are compiled (`compiled`), and once more not (`eager`), so that
neither side has what the other lacks. Seconds are medians of whole steps that end with the gradient norm on the host;
memory is the most that torch held. Utilisation is 6 operations a weight and token, over those a second of one large
bf16 product on the same device in the same run: no figure of a data sheet.
"""

from __future__ import annotations

import argparse
import gc
import time
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader

from bitnet_train.runtime.memory import peak_resident_bytes, reset_peak
from bitnet_train.train.loop.blocks_of_step import prepare_blocks
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.settings import OptimConfig
from bitnet_train.train.losses.settings import LossConfig
from scripts.bench.train_step import Stopwatch, batches, build

KINDS = ("linear", "naive", "ours", "groups")
PRODUCT, PRODUCTS = 8192, 8  # size of the product that utilisation is measured by, and how many are timed
Facts = dict[str, Any]


def measure_speed(device: torch.device, small: bool) -> Facts:
    """Return a row a kind and way, each with its ratios to `linear` of the same way."""
    sizes = {"layers": 1, "rows": 1, "tokens": 16, "steps": 1} if small else {"layers": 30, "rows": 16, "tokens": 512}
    chosen = argparse.Namespace(**{"steps": 10, **sizes})
    ways = ("eager",) if small else ("eager", "compiled")
    rows = [row for way in ways for row in _compared(device, way, chosen)]
    most = None if small else product_tflops(device)
    for row in rows:
        row["utilisation"] = None if most is None else row["tflops"] / most
    return {"shape": vars(chosen), "product_tflops": most, "rows": rows}


def _compared(device: torch.device, way: str, chosen: argparse.Namespace) -> list[Facts]:
    rows = [measure(kind, way, device, chosen) for kind in KINDS]
    plain = rows[0]
    for row in rows:
        row["step_ratio"] = row["step_s"] / plain["step_s"]
        row["memory_ratio"] = row["memory_mb"] / plain["memory_mb"] if plain["memory_mb"] else None
        print({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}, flush=True)
    return rows


def measure(kind: str, way: str, device: torch.device, chosen: argparse.Namespace) -> Facts:
    """Train some steps of a kind; return seconds, memory and tokens a second."""
    student = build(kind, chosen.layers)
    prepare_blocks(student, compiled=way == "compiled", checkpointed=False)
    module = BitLightningModule(
        student,
        None,
        max_steps=chosen.steps + 1,
        micro_rows=chosen.rows,
        loss=LossConfig(kl=0.0, ce=1.0),
        optim=OptimConfig(lr=1e-4),
    )
    watch = Stopwatch()
    trainer = Trainer(
        accelerator="cpu" if device.type == "cpu" else "gpu",
        devices=1,
        precision="32-true" if device.type == "cpu" else "bf16-mixed",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    )
    _start_from_here(device)
    trainer.fit(module, DataLoader(batches(chosen), batch_size=None))
    step_s, tokens = median(watch.wall_s[1:]), chosen.rows * chosen.tokens
    return {
        "kind": kind,
        "way": way,
        "step_s": step_s,
        "first_step_s": watch.wall_s[0],
        "memory_mb": _most(device) / 1e6,
        "tokens_per_s": tokens / step_s,
        "tflops": 6 * _weights(student) * tokens / step_s / 1e12,
        "losses": watch.losses,
    }


def product_tflops(device: torch.device) -> float:
    """Return the operations a second, in 10^12, of a bf16 product of two square matrices."""
    a = torch.ones(PRODUCT, PRODUCT, dtype=torch.bfloat16, device=device)
    a.mm(a)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(PRODUCTS):
        a.mm(a)
    torch.cuda.synchronize()
    return 2 * PRODUCT**3 * PRODUCTS / (time.perf_counter() - start) / 1e12


def _weights(student: nn.Module) -> int:
    """Return the weights that a token is multiplied by: of a tied embedding once, as the head."""
    return sum(parameter.numel() for parameter in student.parameters())


def _start_from_here(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        reset_peak()


def _most(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_resident_bytes() or 0
