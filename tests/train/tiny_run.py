"""A run small enough to be killed and repeated: 2-layer Llama, LoRA inside binary weights, dropout, random rows.

Also a script, so that tests can send it signals: `python tiny_run.py RUN_DIR [--die-at STEP --signal NAME] ...`.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningDataModule
from transformers import LlamaConfig, LlamaForCausalLM

from bitnet_train.model.bit_lora import AdapterConfig, attach
from bitnet_train.model.convert import convert
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.surrogate import Tanh
from bitnet_train.train.loop.fit import FitConfig, FitResult, fit
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.optim import OptimConfig
from bitnet_train.train.loop.schedules import ScheduleConfig
from bitnet_train.train.losses.terms import LossConfig

VOCABULARY, LENGTH, ROWS = 64, 12, 8
STEPS, SAVE_EVERY = 12, 4
UNBALANCED = LossConfig(kl=1.0, ce=0.3, hidden=1.0, hidden_balance=False)


def llama(dropout: float = 0.1) -> LlamaForCausalLM:
    torch.manual_seed(3)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            attention_dropout=dropout,
            tie_word_embeddings=False,
        )
    )


def rows(index: int, num_rows: int = ROWS, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows with very unequal numbers of trained tokens: row r trains about r+1 of them."""
    generator = torch.Generator().manual_seed(1000 * seed + index)
    input_ids = torch.randint(VOCABULARY, (num_rows, LENGTH), generator=generator)
    trained = torch.arange(LENGTH)[None] <= torch.arange(num_rows)[:, None] % (LENGTH - 1) + 1
    labels = torch.where(trained, input_ids, -100)
    return {"input_ids": input_ids, "labels": labels, "attention_mask": torch.ones_like(input_ids)}


class Rows(LightningDataModule):
    """Endless; its state counts the batches *drawn*, one more than were used, as a prefetching loader's does."""

    def __init__(self, repeat: bool = False, validation: int = 2) -> None:
        super().__init__()
        self.next_batch, self.repeat, self.validation = 0, repeat, validation

    def train_dataloader(self):
        return _Endless(self)

    def val_dataloader(self):
        return [rows(10_000 + index) for index in range(self.validation)]

    def state_dict(self) -> dict[str, int]:
        return {"next_batch": self.next_batch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.next_batch = state_dict["next_batch"]


class _Endless:
    def __init__(self, data: Rows) -> None:
        self.data = data

    def __iter__(self):
        while True:
            self.data.next_batch += 1
            whole = rows(0 if self.data.repeat else self.data.next_batch - 1)
            rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
            yield {name: values[rank::world] for name, values in whole.items()}


class DieAt(Callback):
    """Send this process a signal just before a step."""

    def __init__(self, step: int, signum: int) -> None:
        self.step, self.signum = step, signum

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if pl_module.step == self.step:
            os.kill(os.getpid(), self.signum)


class KeepGradients(Callback):
    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        grads = {name: p.grad.clone() for name, p in pl_module.student.named_parameters() if p.grad is not None}
        self.steps.append(grads)


def tiny_module(
    *,
    steps: int = STEPS,
    micro_rows: int = 3,
    dropout: float = 0.1,
    lr: float = 3e-3,
    clip_norm: float = 1.0,
    loss: LossConfig | None = None,
) -> BitLightningModule:
    """Learnable scales, norms and LoRA factors train; tanh hardening; all three losses."""
    teacher, student = llama(dropout).eval(), llama(dropout)
    convert(student, weight=WeightScheme(granularity="group", group_size=16, learnable_scale=True), surrogate=Tanh())
    torch.manual_seed(4)
    return BitLightningModule(
        attach(student, AdapterConfig(rank=4, alpha=8.0)),
        teacher,
        max_steps=steps,
        micro_rows=micro_rows,
        loss=loss or LossConfig(kl=1.0, ce=0.3, hidden=1.0, balance_step=5),
        optim=OptimConfig(lr=lr, clip_norm=clip_norm),
        schedule=ScheduleConfig(hardness="tanh"),
        seed=7,
    )


def run(run_dir: Path, module: BitLightningModule, *, data=None, callbacks=(), loggers=(), **options) -> FitResult:
    given = {"precision": "fp32", "validate_every_steps": 3, "save_every_steps": SAVE_EVERY, "accelerator": "cpu"}
    given |= {"quiet": True} | options
    config = FitConfig(max_steps=module.max_steps, num_threads=1, **given)
    return fit(module, data or Rows(), config, run_dir, loggers, callbacks)


def trained_tensors(module: BitLightningModule) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def run_in_two_processes(run_dir: Path) -> None:
    """Keep the gradients of a step without, and the balance of one with, a balanced hidden term."""
    keep, ddp = KeepGradients(), {"strategy": "ddp", "devices": 2}
    run(run_dir, tiny_module(steps=1, dropout=0.0, micro_rows=2, loss=UNBALANCED), callbacks=[keep], **ddp)
    balanced = tiny_module(steps=1, dropout=0.0, micro_rows=2)
    run(run_dir / "balanced", balanced, **ddp)
    kept = {"gradients": keep.steps[0], "balance": balanced.hidden_balance, "trained": trained_tensors(balanced)}
    torch.save(kept, run_dir / f"rank-{os.environ['RANK']}.pt")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--die-at", type=int, default=-1)
    parser.add_argument("--signal", default="SIGKILL")
    parser.add_argument("--ddp", action="store_true")
    parser.add_argument("--keep-last", type=int, default=2)
    given = parser.parse_args()
    options = {"keep_last": given.keep_last, "resume": "auto"}
    if given.ddp:
        run_in_two_processes(given.run_dir)
        return
    run(given.run_dir, tiny_module(), callbacks=[DieAt(given.die_at, signal.Signals[given.signal])], **options)


if __name__ == "__main__":
    main()
