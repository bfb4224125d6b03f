"""Distillation of the 1-bit student from the frozen model it came from, one optimiser step per loader batch.

A batch of the loader holds all rows of one step that belong to this process, equally many on every process; they run
in micro-batches of `micro_rows`. With the terms the sums of `losses`, each with its weight w and its balance b (1 for
the terms over logits), and M the trained tokens of the whole step on all processes, the gradient is that of

```
L = (sum over processes and micro-batches of  sum over terms of  w b term) / M
```

so it does not depend on how rows are split: averaging per micro-batch would weigh tokens of short rows more, the
classic bug of gradient accumulation. Nor does b, which compares the norms of the gradients of those sums over the
whole step. DDP and FSDP2 average gradients over processes, hence the factor `world_size` below.

The step counter lives here and in the checkpoint, not in Lightning's loops: they start afresh on every resume, the
loader starts at batch `step`, the schedules and the random numbers are functions of `step`, and nothing else carries
over. The teacher is no submodule: no optimiser, checkpoint, state dict or `train()` call ever reaches it.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.model.bit_linear import set_hardness
from bitnet_train.model.quantized_linear import Products, training_products
from bitnet_train.model.step_attention import step_attention
from bitnet_train.train.data.given_batch import read_batch
from bitnet_train.train.loop.guard import DivergenceWatch, is_finite
from bitnet_train.train.loop.guest import show, steps_of
from bitnet_train.train.loop.held_out import HeldOutWatch
from bitnet_train.train.loop.held_out_sums import HeldOutSums
from bitnet_train.train.loop.layer_watch import LayerWatch
from bitnet_train.train.loop.odd_steps import OddSteps
from bitnet_train.train.loop.optim import build_optimizer, take_settings
from bitnet_train.train.loop.processes import Processes
from bitnet_train.train.loop.resume import load_progress, save_progress
from bitnet_train.train.loop.rng import seed_step
from bitnet_train.train.loop.schedules import ScheduleConfig, hardness, lr_factor
from bitnet_train.train.loop.settings import OptimConfig
from bitnet_train.train.loop.sharded import shard
from bitnet_train.train.loop.spread import is_spread, whole
from bitnet_train.train.loop.step_health import leave_out, watch
from bitnet_train.train.loop.term_balance import is_due, measured_balances
from bitnet_train.train.losses.attention_relation import RelationTaps
from bitnet_train.train.losses.composition import (
    TERMS,
    Batch,
    Heads,
    TokenSums,
    forward,
    held_out_sums,
    micro_batches,
    token_sums,
    total_loss,
    weighted,
)
from bitnet_train.train.losses.settings import LossConfig
from bitnet_train.train.losses.teacher import keep_products_in_bfloat16
from bitnet_train.train.losses.teacher_cache import TeacherCache
from bitnet_train.train.losses.token_losses import count_trained


class BitLightningModule(LightningModule):
    """Train `student` (any Hugging Face causal LM, 1-bit layers or not) against `teacher`, in `fit` or any Trainer.

    A batch is `input_ids`, `labels` (unshifted, -100 = not trained), `attention_mask`, each int64 [B,L]; of packed rows
    `position_ids` and `real_tokens` in place of the mask (`chunk.collate`). A loader of the user's may leave out all
    but the ids (`given_batch`). `step` counts finished optimiser steps, `tokens` the unpadded tokens seen and `seconds`
    the time that took, all three counted over resumes; `metrics` holds the figures of the latest step.

    `max_steps`: where the schedules end; None: where the Trainer does. `micro_rows`: rows per forward pass; None: all
    rows of a batch.

    `products`: how the 1-bit linears of the student multiply (`model.quantized_linear`).

    `rounded`: what is not 1-bit holds rounded values, and the optimiser keeps it so (`optim`).

    `is_guest`: whether the Trainer is a user's own. Figures go to its loggers and its bar by `self.log`, it says which
    held-out rows are for which process, and counts epochs over a resume; `fit` does all three itself.

    Training in bf16-mixed leaves the linear layers of `teacher` in bfloat16: give a copy of a model that is used
    elsewhere, in float32.

    Raises
    ------
    ConfigError
        When the loss compares with a teacher and there is none.
    DataError
        When a step has no trained token.
    TrainingError
        When a loss or gradient is not finite, before any weight changes.

    Examples
    --------
    >>> import bitnet_train as bt
    >>> from copy import deepcopy
    >>> from lightning.pytorch import Trainer
    >>> from torch.utils.data import DataLoader
    >>> original = bt.load_pretrained("tiny")
    >>> student = deepcopy(original.model)
    >>> _ = bt.convert(student, "binary_row")
    >>> rows = original.tokenizer(["import os", "import sys"], return_tensors="pt")["input_ids"]
    >>> module = bt.BitLightningModule(student, original.model, optim=bt.OptimConfig(lr=1e-3))
    >>> quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    >>> trainer = Trainer(max_steps=2, accelerator="cpu", enable_checkpointing=False, **quiet)
    >>> trainer.fit(module, DataLoader(rows, batch_size=1))
    >>> module.step, sorted(module.metrics)
    (2, ['grad_norm', 'kl', 'loss', 'lr', 'tokens'])
    """

    hidden_balance: Tensor
    attention_balance: Tensor

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        *,
        max_steps: int | None = None,
        micro_rows: int | None = None,
        loss: LossConfig | None = None,
        optim: OptimConfig | None = None,
        schedule: ScheduleConfig | None = None,
        seed: int = 0,
        teacher_cache: TeacherCache | None = None,
        rounded: bool = False,
        products: Products = "float",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False
        self.loss, self.optim = loss or LossConfig(), optim or OptimConfig()
        self.schedule = schedule or ScheduleConfig()
        self.max_steps, self.micro_rows, self.seed = max_steps or 0, micro_rows, seed
        _check_sizes(max_steps, micro_rows)
        self.is_guest = True
        if self.loss.needs_teacher and teacher is None:
            raise ConfigError(
                "`loss.kl` and `loss.hidden` compare with a frozen model, but none was given. Use `loss.ce`."
            )
        self.student, self.teacher_cache, self.rounded = student, teacher_cache, rounded
        self.products: Products = products
        self._teacher = (teacher,)  # a tuple hides it from nn.Module's registration
        self._heads: Heads | None = None
        self.register_buffer("hidden_balance", torch.ones(()))
        self.register_buffer("attention_balance", torch.ones(()), persistent=self.loss.attention > 0)
        self._taps = self._listen()
        self.step, self.tokens, self.seconds_before = 0, 0, 0.0
        self.announced: frozenset[str] = frozenset()  # changed settings that were told already, by dotted key
        self._since: float | None = None
        self.metrics: dict[str, float] = {}
        self.validation_metrics: dict[str, float] = {}
        self.last_checkpoint: Path | None = None
        self.good_checkpoint: Path | None = None
        self.best_checkpoint: Path | None = None
        self.watch, self.layers = DivergenceWatch(), LayerWatch(nn.Module())
        self.odd_steps = OddSteps()
        self.held_out = HeldOutWatch()
        self._held_out_sums: HeldOutSums | None = None

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen model."""
        return self._teacher[0]

    def teach_with(self, teacher: nn.Module) -> None:
        """Take another frozen model for the one given, before training starts."""
        self._teacher = (teacher,)
        self._heads = None

    @property
    def heads(self) -> Heads:
        """The heads of both models that make logits row by row, asked for once; none of a model that is spread."""
        if self._heads is None:
            self._heads = Heads() if is_spread(self.student) else Heads.of(self.student, self.teacher)
        return self._heads

    @property
    def processes(self) -> Processes:
        """The processes of the run."""
        return Processes(self.trainer)

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The parameters of the student that train."""
        return [parameter for parameter in self.student.parameters() if parameter.requires_grad]

    @property
    def seconds(self) -> float:
        """Wall time of training, that of earlier processes up to the checkpoint that was resumed included."""
        return self.seconds_before + (0.0 if self._since is None else time.perf_counter() - self._since)

    @property
    def is_calm(self) -> bool:
        """Whether a checkpoint saved now is one to come back to."""
        return self.watch.is_calm and self.odd_steps.in_a_row == 0

    def configure_model(self) -> None:
        """Spread the student over the processes, where the strategy is to."""
        mesh = getattr(self.trainer.strategy, "device_mesh", None)
        if mesh is not None and not is_spread(self.student):
            shard(self.student, mesh["data_parallel"])
            self._heads = None  # an estimate may have asked for them

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimiser over what trains."""
        return build_optimizer(self.student, self.optim, rounded=self.rounded)

    def _listen(self) -> RelationTaps | None:
        if self.teacher is None or self.loss.attention == 0:
            return None
        return RelationTaps(self.student, self.teacher, self.loss.attention_layer)

    def on_fit_start(self) -> None:
        """Start the clock, and put the teacher beside the student, in the arithmetic of the products."""
        self.max_steps = self.max_steps or steps_of(self.trainer)
        self._since = time.perf_counter()
        self._taps = self._taps or self._listen()
        self.student.train()
        self.layers = LayerWatch(self.student)
        if self.teacher is not None:
            self.teacher.to(self.device).eval().requires_grad_(False)
        self._heads = self.heads  # asked before anything listens to a step, and before the teacher is rounded
        is_cached = self.teacher_cache is not None  # a cache knows it by its weights
        if self.teacher is not None and self.trainer.precision == "bf16-mixed" and not is_cached:
            keep_products_in_bfloat16(self.teacher)

    def on_train_start(self) -> None:
        """Let the optimiser go by this run's settings: a checkpoint has brought those of before."""
        take_settings(self._optimizer(), self.student, self.optim)

    def teardown(self, stage: str) -> None:
        """Stop listening to the models, which others may use."""
        if self._taps is not None:
            self._taps.close()
        self._taps = None

    # -- one optimiser step ----------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Make one optimiser step from the rows of `batch`."""
        batch = read_batch(batch)
        scheduled = self._apply_schedules()
        seed_step(self.seed, self.step, self.global_rank)
        num_trained, num_tokens = self._count(batch)
        if num_trained == 0:
            raise DataError(
                f"The rows of step {self.step} have no trained token: all labels are -100. Check the masks."
            )
        sums = self._backward(batch, num_trained)
        means: dict[str, float] = dict(zip(TERMS, (sums / num_trained).tolist(), strict=True))
        total = weighted(means, self.loss, self._balances())
        grad_norm = float(self._clip())
        is_good = is_finite(total, grad_norm)
        if is_good:
            self.odd_steps.is_good()
        else:
            leave_out(self, total, grad_norm)
            self._optimizer().zero_grad(set_to_none=True)  # so that the optimiser changes nothing
        self._optimizer_step()
        self.step += 1
        self.tokens += num_tokens
        figures = {"grad_norm": grad_norm, "tokens": float(self.tokens)}
        self.metrics = {"loss": total, **self._active(means), **scheduled, **figures}
        self._show(self.metrics, "loss")
        if is_good:
            watch(self, means, self._active(means), scheduled.get("hardness"))

    def _apply_schedules(self) -> dict[str, float]:
        factor = lr_factor(self.step, self.max_steps, self.schedule)
        for group in self._optimizer().param_groups:
            group["lr"] = group["peak_lr"] * factor
        level = hardness(self.step, self.max_steps, self.schedule)
        if level is None:
            return {"lr": float(self.optim.lr) * factor}
        set_hardness(self.student, level)
        return {"lr": float(self.optim.lr) * factor, "hardness": level}

    def _count(self, batch: Batch) -> tuple[int, int]:
        """Return the trained and the unpadded tokens of the step, over all processes."""
        counts = [count_trained(batch["labels"]), _count_tokens(batch)]
        trained, unpadded = self.processes.sum(torch.tensor(counts, device=self.device)).tolist()
        return trained, unpadded

    def _backward(self, rows: Batch, num_trained: int) -> Tensor:
        """Accumulate the gradient of the whole step; return the token sums of all processes, [5]."""
        sums = torch.zeros(len(TERMS), device=self.device, dtype=torch.float64)
        scale = self.processes.number / num_trained
        pieces = list(micro_batches(rows, self.micro_rows))
        if is_due(self.loss, self.step):
            for name, measured in measured_balances(self, pieces, scale).items():
                self._balances()[name].copy_(measured)
        for index, piece in enumerate(pieces):
            made = self.token_sums(piece, scale)
            with self.processes.unsynced() if index < len(pieces) - 1 else nullcontext():
                self.manual_backward(self.total_loss(made, scale))
            sums += made.plain
        return self.processes.sum(sums)

    def token_sums(self, piece: Batch, scale: float) -> TokenSums:
        """Run both models over a micro-batch; the teacher only where no summary of its logits is kept."""
        cache = self.teacher_cache
        told = self._told(piece) if self.loss.needs_teacher and cache is None else None
        target = cache.target(piece) if cache is not None else None
        with training_products(self.products), step_attention(self.student):
            student = forward(self.student, piece, self.loss, self.heads.student)
        return token_sums(student, told, piece, self.loss, scale, heads=self.heads, target=target, taps=self._taps)

    def total_loss(self, made: TokenSums, scale: float) -> Tensor:
        """Return what to call `backward` on, with the balances measured so far."""
        return total_loss(made, self.loss, scale, self._balances())

    @torch.no_grad()
    def _told(self, piece: Batch) -> Any:
        """Return the outputs of the frozen model."""
        assert self.teacher is not None
        with step_attention(self.teacher):
            return forward(self.teacher, piece, self.loss, self.heads.teacher)

    def _active(self, means: dict[str, float]) -> dict[str, float]:
        return {name: mean for name, mean in means.items() if getattr(self.loss, name) > 0}

    def _clip(self) -> Tensor:
        largest, trainable = self.optim.clip_norm or float("inf"), self.trainable
        grads = [parameter.grad for parameter in trainable if parameter.grad is not None]
        norm = whole(nn.utils.get_total_norm(grads))
        nn.utils.clip_grads_with_norm_(trainable, largest, norm)
        return norm

    def _optimizer_step(self) -> None:
        optimizer: Any = self.optimizers()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _balances(self) -> dict[str, Tensor]:
        return {"hidden": self.hidden_balance, "attention": self.attention_balance}

    # -- validation --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start the sums afresh."""
        self._held_out_sums = HeldOutSums(self.device)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add the cross-entropy, the KL divergence (T = 1) and the count of this batch's trained tokens."""
        rows = read_batch(batch) if self.is_guest else self.processes.own_rows(read_batch(batch))
        for piece in micro_batches(rows, self.micro_rows):
            student = forward(self.student, piece, self.loss, self.heads.student)
            told = self._told(piece) if self.loss.needs_teacher else None
            text, divergence = held_out_sums(student, told, piece["labels"], self.heads)
            assert self._held_out_sums is not None
            self._held_out_sums.add(text, divergence, count_trained(piece["labels"]))

    def on_validation_epoch_end(self) -> None:
        """Turn the sums of all processes into nats per token and perplexity."""
        assert self._held_out_sums is not None
        self.validation_metrics = self._held_out_sums.figures(self.processes, has_teacher=self.loss.needs_teacher)
        self._show(self.validation_metrics, "val_ce")

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what training changes; see `resume`."""
        save_progress(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up step, tokens and random states; refuse a checkpoint of other tensors."""
        load_progress(self, checkpoint)

    def _show(self, figures: dict[str, float], in_bar: str) -> None:
        if self.is_guest:
            show(self, figures, in_bar)

    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        return optimizer


def _check_sizes(max_steps: int | None, micro_rows: int | None) -> None:
    for key, value in (("max_steps", max_steps), ("micro_rows", micro_rows)):
        if value is not None and value < 1:
            raise ConfigError(f"`trainer.{key}={value}` must be 1 or more.")


def _count_tokens(batch: Batch) -> int:
    mask = batch.get("attention_mask", batch.get("real_tokens"))
    return int(mask.sum()) if mask is not None else batch["input_ids"].numel()
