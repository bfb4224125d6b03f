"""Train with a user's own loader: `fit` on the Trainer of this package, `distillation_loss` in any other loop."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from peft import PeftModel
from torch import Tensor, nn

from bitnet_train.errors import ConfigError
from bitnet_train.kernels.torch_threads import on_torch_threads
from bitnet_train.model.bit_linear import BitLinear
from bitnet_train.model.quantized_linear import Products
from bitnet_train.python.choices import settings_of
from bitnet_train.train.data.given_loader import GivenLoader
from bitnet_train.train.loop.fit import FitResult
from bitnet_train.train.loop.fit import fit as fit_module
from bitnet_train.train.loop.machine import arithmetic
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.optim import automatic_lr
from bitnet_train.train.loop.products import choose_products
from bitnet_train.train.loop.schedules import ScheduleConfig
from bitnet_train.train.loop.settings import OptimConfig, Precision, TrainerConfig
from bitnet_train.train.loop.settings import Products as AskedProducts
from bitnet_train.train.loop.signals import Interrupted
from bitnet_train.train.losses.logit_loss import TeacherLogits, logit_loss
from bitnet_train.train.losses.settings import LossConfig
from bitnet_train.train.losses.token_losses import count_trained, logit_weights, next_labels

_ARGUMENTS = {
    "`trainer.resume=auto`": '`resume="auto"`',
    "`trainer.resume=never`": '`resume="never"`',
    "`run.dir`": "`folder`",
}


@on_torch_threads()
def fit(
    student: nn.Module,
    loader: Iterable[Any],
    folder: str | Path,
    *,
    teacher: nn.Module | None = None,
    steps: int | None = None,
    held_out: Iterable[Any] | None = None,
    loss: str | LossConfig = "kl",
    optimizer: str | OptimConfig | None = None,
    schedule: str | ScheduleConfig = "hard_cosine",
    micro_rows: int | None = None,
    validate_every_steps: int = 100,
    save_every_steps: int = 100,
    precision: Precision = "auto",
    products: AskedProducts = "auto",
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    seed: int = 0,
    resume: str = "never",
    loggers: Sequence[Any] = (),
    callbacks: Sequence[Any] = (),
    quiet: bool = False,
) -> FitResult:
    """Train a converted model against the model it came from, in place, with the rows of your own loader.

    Parameters
    ----------
    student
        What `convert` changed, or what `attach` made of it.
    loader
        A `DataLoader` or any iterable that can be gone through again; one batch is one optimiser step. A batch is a
        mapping with `input_ids`, and `attention_mask` and `labels` (unshifted, -100 = not trained) where there are any,
        each an integer tensor [rows, tokens]. Without labels every token that is not masked trains.
    folder
        Where `checkpoints/` and `metrics.jsonl`, a line a step, are written; made where it is not there.
    teacher
        The frozen model, needed by every loss but `ce`. A copy from before `convert`: it may be left in bfloat16.
    steps
        Optimiser steps; the loader is gone round as often as that takes. None: one pass.
    held_out
        Batches to validate with every `validate_every_steps` steps and at the end.
    loss, optimizer, schedule
        Choices of `configs/`, or objects. The optimiser is `adamw_lora` for an adapter and `adamw_full` else; a rate of
        `OptimConfig(lr="auto")` follows from the size of the latents and the steps.
    micro_rows
        Rows per forward pass; None: all rows of a batch. The gradient does not depend on it.
    validate_every_steps, save_every_steps
        Steps between validations, and between checkpoints; 0 validates never.
    precision, products, accelerator
        As `trainer.precision`, `trainer.products` and `trainer.accelerator`: `auto` takes what is there, and what a
        timing finds faster.
    seed
        Of what training draws at random, such as dropout.
    resume
        `auto` goes on from the newest checkpoint in `folder`, where there is one.
    loggers, callbacks
        Of Lightning.
    quiet
        Show no bar.

    Returns
    -------
    FitResult
        Steps, tokens, seconds, and `metrics`: losses in nats per token of the last step and of the held-out rows.

    Raises
    ------
    ConfigError
        For a name that is no choice, a loss without the teacher it needs, or a loader without length where no `steps`
        are given.
    DataError
        For a batch that is none, or an iterator that is used up.
    TrainingError
        For a loss that is not finite, or a full disk.
    KeyboardInterrupt
        Where the kernel is interrupted, after the step and with a checkpoint: `resume="auto"` goes on.

    Examples
    --------
    >>> import bitnet_train as bt
    >>> from copy import deepcopy
    >>> original = bt.load_pretrained("tiny")
    >>> student = deepcopy(original.model)
    >>> _ = bt.convert(student, "binary_row")
    >>> batch = original.tokenizer(["import os", "import sys"], return_tensors="pt")
    >>> result = bt.fit(student, [batch], "my_run", teacher=original.model, steps=3, quiet=True)
    >>> result.steps, result.checkpoint.name
    (3, 'step-000003')
    """
    asked = settings_of("optimizer", optimizer or _usual_optimizer(student), OptimConfig)
    num_steps = steps if steps is not None else _one_pass(loader)
    found = arithmetic(precision, accelerator).precision
    trainer = TrainerConfig(
        max_steps=num_steps,
        validate_every_steps=0 if held_out is None else validate_every_steps,
        save_every_steps=save_every_steps,
        precision="bf16" if found == "bf16" else "fp32",
        seed=seed,
        resume=resume,
        accelerator=accelerator,
    )
    module = BitLightningModule(
        student,
        teacher,
        max_steps=num_steps,
        micro_rows=micro_rows,
        loss=settings_of("loss", loss, LossConfig),
        optim=automatic_lr(student, asked, num_steps),
        schedule=settings_of("schedule", schedule, ScheduleConfig),
        seed=seed,
        products=_products(student, products, found, accelerator),
    )
    data = GivenLoader(loader, () if held_out is None else held_out)
    try:
        return fit_module(module, data, trainer, Path(folder), loggers, callbacks, quiet=quiet)
    except ConfigError as error:
        raise ConfigError(_in_python(str(error))) from None
    except Interrupted as stopped:
        if stopped.signum != signal.SIGINT:
            raise
        raise KeyboardInterrupt(_in_python(str(stopped))) from None


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, loss: str | LossConfig = "kl"
) -> Tensor:
    """Return the mean loss of a batch in nats per trained token, a differentiable scalar, for a loop of your own.

    Parameters
    ----------
    student_logits, teacher_logits
        [B, L, V] in any float type, of the same rows; None for a teacher that the loss does not need (`ce`).
    labels
        int64 [B, L], unshifted as Hugging Face has them: position i is trained where `labels[:, i + 1]` is not -100.
    loss
        `kl`, `kl_ce`, `ce`, or a `LossConfig` of terms over logits.

    Raises
    ------
    ConfigError
        For terms over hidden states or attention, which only `BitLightningModule` computes, or a missing teacher.

    Examples
    --------
    >>> import torch, bitnet_train as bt
    >>> student, teacher = torch.zeros(1, 3, 4, requires_grad=True), torch.zeros(1, 3, 4)
    >>> labels = torch.tensor([[0, 1, -100]])
    >>> bt.distillation_loss(student, teacher, labels).item()
    0.0
    >>> round(bt.distillation_loss(student, None, labels, "ce").item(), 3)  # log 4
    1.386
    """
    config = settings_of("loss", loss, LossConfig)
    beyond = [name for name in ("hidden", "attention") if getattr(config, name)]
    if beyond:
        raise ConfigError(
            f"`loss.{beyond[0]}` is not over logits, so `distillation_loss` cannot compute it. Train with "
            "`bitnet_train.fit` or `bitnet_train.BitLightningModule`, or take `kl`, `kl_ce` or `ce`."
        )
    if config.needs_teacher and teacher_logits is None:
        raise ConfigError("`loss.kl` compares with a teacher's logits, but none were given. Give them, or use `ce`.")
    target = None if teacher_logits is None else TeacherLogits(teacher_logits.flatten(0, -2))
    scale = 1 / max(1, count_trained(labels))
    return logit_loss(student_logits, target, next_labels(labels), logit_weights(config), scale)[0]


def _in_python(text: str) -> str:
    """Return a message of the command line in the words of this function's arguments."""
    for key, argument in _ARGUMENTS.items():
        text = text.replace(key, argument)
    return text


def _usual_optimizer(student: nn.Module) -> str:
    return "adamw_lora" if isinstance(student, PeftModel) else "adamw_full"


def _one_pass(loader: Iterable[Any]) -> int:
    try:
        return len(loader)  # pyright: ignore[reportArgumentType]
    except TypeError:  # a DataLoader of an iterable dataset has the method and no length
        raise ConfigError("The loader does not say how many batches it has. Give `steps`.") from None


def _products(student: nn.Module, asked: AskedProducts, precision: str, accelerator: str) -> Products:
    """Return how the 1-bit linears multiply: what the first of them is fastest with."""
    layer = next((module for module in student.modules() if isinstance(module, BitLinear)), None)
    if layer is None:
        return "float"
    return choose_products(asked, precision, accelerator, layer.weight_scheme, layer.activation).name
