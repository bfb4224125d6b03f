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

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.model.bit_linear import set_hardness
from bitnet_train.model.config_fields import vocab_size
from bitnet_train.model.quantized_linear import Products, training_products
from bitnet_train.model.step_attention import step_attention
from bitnet_train.train.data.given_batch import read_batch
from bitnet_train.train.loop.guard import DivergenceWatch, check_finite, is_finite
from bitnet_train.train.loop.held_out import HeldOutWatch
from bitnet_train.train.loop.layer_watch import LayerWatch, first_non_finite, has_bad_weight
from bitnet_train.train.loop.odd_steps import OddSteps
from bitnet_train.train.loop.optim import build_optimizer, take_settings
from bitnet_train.train.loop.resume import load_progress, save_progress
from bitnet_train.train.loop.rng import seed_step
from bitnet_train.train.loop.schedules import ScheduleConfig, hardness, lr_factor, warmup_steps
from bitnet_train.train.loop.settings import OptimConfig
from bitnet_train.train.loop.sharded import shard
from bitnet_train.train.loop.spread import is_spread, whole
from bitnet_train.train.losses.attention_relation import RelationTaps
from bitnet_train.train.losses.composition import (
    LOGITS,
    TERMS,
    Batch,
    Heads,
    TokenSums,
    balances,
    forward,
    held_out_sums,
    micro_batches,
    one_term,
    token_sums,
    total_loss,
    weighted,
)
from bitnet_train.train.losses.settings import LossConfig
from bitnet_train.train.losses.teacher import keep_products_in_bfloat16
from bitnet_train.train.losses.teacher_cache import TeacherCache
from bitnet_train.train.losses.token_losses import count_trained

MAX_NATS = 700.0  # exp(709) is the largest that a float64 holds


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
        self._validation_sums: Tensor | None = None

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
        self.max_steps = self.max_steps or _steps_of(self.trainer)
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
            self._leave_out(total, grad_norm)
        self._optimizer_step()
        self.step += 1
        self.tokens += num_tokens
        figures = {"grad_norm": grad_norm, "tokens": float(self.tokens)}
        self.metrics = {"loss": total, **self._active(means), **scheduled, **figures}
        self._log(self.metrics, "loss")
        if is_good:
            self._watch(means, scheduled.get("hardness"))

    def _leave_out(self, total: float, grad_norm: float) -> None:
        """Drop the gradients of a step that is not finite, so that the optimiser changes nothing; or end the run."""
        if has_bad_weight(self.student) or not self.odd_steps.may_leave_out():
            where = first_non_finite(self.student) or ""
            check_finite(total, grad_norm, self.step, self.good_checkpoint, where)
        what = f"the loss is {total}" if not math.isfinite(total) else f"the gradient norm is {grad_norm}"
        if self.trainer.is_global_zero:
            self.odd_steps.tell(self.step, f"{what}, so it is skipped and no weight changes")
        self._optimizer().zero_grad(set_to_none=True)

    def _watch(self, means: dict[str, float], hardness: float | None) -> None:
        is_warming = self.step <= warmup_steps(self.max_steps, self.schedule)
        self.watch.observe(means, self._active(means), hardness, self._uniform_guess() if is_warming else None)
        if self.watch.rising == 1 and self.trainer.is_global_zero:
            self.odd_steps.tell(self.step - 1, self.watch.describe())
        if self.watch.rising and not is_warming:
            is_last = self.watch.rising == self.watch.steps
            self.watch.check(self.step, self.good_checkpoint, self.layers.describe(self.student) if is_last else "")

    def _uniform_guess(self) -> float:
        """Return what a uniform guess costs, nats per token; the divergences are scaled by their temperature."""
        return math.log(vocab_size(self.student)) * max(1.0, self.loss.temperature) ** 2

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
        trained, unpadded = self._sum_over_processes(torch.tensor(counts, device=self.device)).tolist()
        return trained, unpadded

    def _backward(self, rows: Batch, num_trained: int) -> Tensor:
        """Accumulate the gradient of the whole step; return the token sums of all processes, [5]."""
        sums = torch.zeros(len(TERMS), device=self.device, dtype=torch.float64)
        scale = self._world() / num_trained
        pieces = list(micro_batches(rows, self.micro_rows))
        if self._balance_is_due():
            self._balance(pieces, scale)
        for index, piece in enumerate(pieces):
            made = self.token_sums(piece, scale)
            with self._unsynced() if index < len(pieces) - 1 else nullcontext():
                self.manual_backward(self.total_loss(made, scale))
            sums += made.plain
        return self._sum_over_processes(sums)

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
        largest, trainable = self.optim.clip_norm or float("inf"), self._trainable()
        grads = [parameter.grad for parameter in trainable if parameter.grad is not None]
        norm = whole(nn.utils.get_total_norm(grads))
        nn.utils.clip_grads_with_norm_(trainable, largest, norm)
        return norm

    def _optimizer_step(self) -> None:
        optimizer: Any = self.optimizers()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    # -- balance of the terms that are not over logits ---------------------------------------------------------------

    def _balances(self) -> dict[str, Tensor]:
        return {"hidden": self.hidden_balance, "attention": self.attention_balance}

    def _balance_is_due(self) -> bool:
        return bool(self.loss.balanced) and self.step in (0, self.loss.balance_step)

    def _balance(self, pieces: Sequence[Batch], scale: float) -> None:
        """Measure the gradient norms over all that trains, of the whole step; store what is finite.

        Each term has a pass of its own over the step's rows, so that no more than one gradient is held, and draws the
        random numbers that the step itself will draw.
        """
        norms = {name: self._gradient_norm(name, pieces, scale) for name in (LOGITS, *self.loss.balanced)}
        seed_step(self.seed, self.step, self.global_rank)
        for name, measured in balances(norms, scale).items():
            if bool(measured.isfinite()):
                self._balances()[name].copy_(measured)

    def _gradient_norm(self, term: str, pieces: Sequence[Batch], scale: float) -> Tensor:
        """Return the norm of the gradient of one term, summed over all rows of the step, those of all processes."""
        seed_step(self.seed, self.step, self.global_rank)
        trainable = self._trainable()
        with self._unsynced():
            for piece in pieces:
                one_term(self.token_sums(piece, scale), term).backward()
        grads = [parameter.grad for parameter in trainable if parameter.grad is not None]
        self._optimizer().zero_grad(set_to_none=True)
        if not is_spread(self.student):  # there the backward has summed them
            grads = [self._sum_over_processes(grad) for grad in grads]
        return whole(nn.utils.get_total_norm(grads))

    # -- validation --------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Start the sums afresh."""
        self._validation_sums = torch.zeros(3, device=self.device, dtype=torch.float64)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add the cross-entropy, the KL divergence (T = 1) and the count of this batch's trained tokens."""
        rows = read_batch(batch) if self.is_guest else self._own_rows(read_batch(batch))
        for piece in micro_batches(rows, self.micro_rows):
            student = forward(self.student, piece, self.loss, self.heads.student)
            told = self._told(piece) if self.loss.needs_teacher else None
            sums = [*held_out_sums(student, told, piece["labels"], self.heads), count_trained(piece["labels"])]
            assert self._validation_sums is not None
            self._validation_sums += torch.tensor(sums, device=self.device, dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        """Turn the sums of all processes into nats per token and perplexity."""
        assert self._validation_sums is not None
        text, divergence, count = self._sum_over_processes(self._validation_sums).tolist()
        if count == 0:
            raise DataError("The validation rows have no trained token: every label is -100. Check the masks.")
        figures = {"val_ce": text / count, "val_perplexity": math.exp(min(text / count, MAX_NATS)), "val_tokens": count}
        self.validation_metrics = figures | ({"val_kl": divergence / count} if self.loss.needs_teacher else {})
        self._log(self.validation_metrics, "val_ce")

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what training changes; see `resume`."""
        save_progress(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up step, tokens and random states; refuse a checkpoint of other tensors."""
        load_progress(self, checkpoint)

    def _log(self, figures: dict[str, float], shown: str) -> None:
        """Hand figures to a Trainer that asks for them; the one called `shown` stands in its bar."""
        if self.is_guest:
            self.log_dict({name: value for name, value in figures.items() if name != shown})
            self.log(shown, figures[shown], prog_bar=True)

    # -- processes ---------------------------------------------------------------------------------------------------

    def _own_rows(self, batch: Batch) -> Batch:
        """Return every `world_size`-th row: validation loaders give all rows to every process.

        Each has equally many, for a model that is spread is gathered by all together: a row of which no token counts
        makes up for one that is lacking.
        """
        num_rows, world = len(batch["labels"]), self._world()
        own = {name: values[self.global_rank :: world] for name, values in batch.items()}
        if self.global_rank < num_rows % world or num_rows % world == 0:
            return own
        further = {name: values[:1] for name, values in batch.items()}
        further["labels"] = torch.full_like(further["labels"], -100)
        return {name: torch.cat([values, further[name]]) for name, values in own.items()}

    def _world(self) -> int:
        return self.trainer.world_size

    def _sum_over_processes(self, values: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(values, reduce_op="sum") if self._world() > 1 else values

    def _unsynced(self) -> AbstractContextManager[Any]:
        block = getattr(self.trainer.strategy, "block_backward_sync", None)
        return block() if block is not None else nullcontext()

    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        return optimizer

    def _trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.student.parameters() if parameter.requires_grad]


def _steps_of(trainer: Trainer) -> int:
    steps = trainer.estimated_stepping_batches
    if not 0 < steps < math.inf:
        raise ConfigError(
            "The schedules need to know where training ends. Give `Trainer(max_steps=...)`, or "
            "`BitLightningModule(max_steps=...)`."
        )
    return int(steps)


def _check_sizes(max_steps: int | None, micro_rows: int | None) -> None:
    for key, value in (("max_steps", max_steps), ("micro_rows", micro_rows)):
        if value is not None and value < 1:
            raise ConfigError(f"`trainer.{key}={value}` must be 1 or more.")


def _count_tokens(batch: Batch) -> int:
    mask = batch.get("attention_mask", batch.get("real_tokens"))
    return int(mask.sum()) if mask is not None else batch["input_ids"].numel()
