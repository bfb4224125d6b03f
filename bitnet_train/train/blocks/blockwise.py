"""Block-wise reconstruction: train each decoder block alone to give what the full-precision block gives.

    x'_0 = x_0 = embedding            t = F_b(x_b)                         F_b full precision, Q_b 1-bit
    minimise over Q_b's latents, scales, norms    d(Q_b(x'_b), t)          AdamW, `steps` batches of `batch_rows` rows
    then x_{b+1} = t,   x'_{b+1} = Q_b(x'_b)

    token_mse   |y - t|^2 / |t|^2 of each real token, mean over the batch
    mse         sum |y - t|^2 / sum |t|^2 over the batch: tokens of huge norm decide. Many models have some (arXiv
                2402.17762); in SmolLM2 they hold the quotient at one value from block 11 to 27, whatever is learnt

Inputs come from the 1-bit prefix, so a block also mends what earlier ones lost; `fp_inputs` is the share of rows that
get the full-precision input x_b instead (BRECQ, arXiv 2102.05426; QDrop, 2203.05740 mixes inside the layer). A text of
some hundred thousand tokens misses most of a vocabulary: others stand in for a share of it (`random_tokens`). Only one
block of each model and the hidden states are in use at a time; with `bf16` the products of both are bfloat16. The
latents of a finished block are moved away from their thresholds (`margin`), with the same codes. It is saved, so that
an interrupted run goes on with the next one, to the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.errors import TrainingError
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.bit_linear import bit_layers, set_hardness
from bitnet_train.model.bit_lora import is_norm
from bitnet_train.model.quantized_linear import training_products
from bitnet_train.model.start.blocks import (
    BlockCall,
    block_calls,
    decoder_blocks,
    run_block,
    training_forward,
)
from bitnet_train.model.start.initialise import fit_block, require_learnable
from bitnet_train.model.step_attention import step_attention
from bitnet_train.progress import track
from bitnet_train.quant.weight import away_from_thresholds
from bitnet_train.train.blocks.block_file import BlockResult, load_block, save_block
from bitnet_train.train.blocks.block_rows import BlockRun, Rows, advance, aim, arithmetic, batches, first_rows
from bitnet_train.train.blocks.settings import BlockLoss, BlockwiseConfig
from bitnet_train.train.loop.optim import OnePassAdamW
from bitnet_train.train.loop.schedules import hardness, lr_factor

_RATE = 0.06  # mean magnitudes a step where `lr` is null; 0.05 to 0.08 served 60 and 200 steps of SmolLM2 alike
_MEASURED_ROWS = 16  # for the error before and after


@dataclass(frozen=True)
class BlockErrors:
    """Error before and after, relative to the mean square of the full-precision block's output."""

    before: float
    after: float


@dataclass(frozen=True)
class Reconstruction:
    """Errors by block, the tokens that training took, the real ones of the text, and seconds of all processes.

    `earlier_seconds` are those of the seconds that earlier, interrupted processes took.
    """

    blocks: tuple[BlockErrors, ...]
    tokens: int
    text_tokens: int
    seconds: float
    earlier_seconds: float = 0.0


@dataclass(frozen=True)
class BlockTraining:
    """What all blocks share: the run, and the hidden states of the block at hand."""

    run: BlockRun
    rows: Rows
    prefix: str
    """Name of the list of blocks in the model."""
    found: list[BlockResult] = field(default_factory=list)
    """Those that an earlier process had finished."""

    @classmethod
    def begin(cls, student: PreTrainedModel, original: PreTrainedModel, run: BlockRun) -> BlockTraining:
        """Start with the embeddings of both models."""
        return cls(run, first_rows(student, original, run), decoder_blocks(student)[0])

    def one(self, index: int, original: nn.Module, call: BlockCall, make: Callable[[int], nn.Module]) -> BlockResult:
        """Train block `index`, or take it from its file, and turn its inputs into those of the next.

        `original` gives the targets; only then is `make(index)` asked for the 1-bit block, which may be made from it.
        """
        aim(original, call, self.rows, self.run)
        block, file = make(index), self.file(index)
        with training_forward(block):
            result = load_block(block, file, f"{self.prefix}.{index}.")
            if result is not None:
                self.found.append(result)
            else:
                started = time.perf_counter()
                self._fit(block, call)
                generator = torch.Generator().manual_seed(self.run.seed * 10_007 + index)
                result = self._train(block, call, generator, index)
                result = replace(result, seconds=time.perf_counter() - started)
                save_block(block, result, file, f"{self.prefix}.{index}.")
            advance(block, call, self.rows, self.run)
        return result

    def file(self, index: int) -> Path:
        """Where block `index` lies once it is finished."""
        return self.run.scratch / f"block-{index:04d}.safetensors"

    def finished(self, results: list[BlockResult], started: float) -> Reconstruction:
        """Return what training all blocks came to."""
        config, (num_rows, num_tokens) = self.run.config, self.rows.is_real.shape
        earlier = sum(result.seconds for result in self.found)
        return Reconstruction(
            blocks=tuple(BlockErrors(result.before, result.after) for result in results),
            tokens=config.steps * min(config.batch_rows, num_rows) * num_tokens,
            text_tokens=int(self.rows.is_real.sum()),
            seconds=time.perf_counter() - started + earlier,
            earlier_seconds=earlier,
        )

    def _fit(self, block: nn.Module, call: BlockCall) -> None:
        init, rows = self.run.init, self.rows
        if init.fits_layers:
            few = slice(init.calibration_rows)
            fit_block(block, call, init, rows.student[few], rows.is_real[few])

    def _train(self, block: nn.Module, call: BlockCall, generator: torch.Generator, index: int) -> BlockResult:
        rows, config = self.rows, self.run.config
        before = _error(block, call, rows, config)
        optimizer = _optimizer(block, self.run)
        order = torch.empty(0, dtype=torch.int64)
        for step in range(config.steps):
            if len(order) < config.batch_rows:
                order = torch.cat([order, torch.randperm(len(rows.student), generator=generator)])
            picked, order = order[: config.batch_rows], order[config.batch_rows :]
            _apply_schedules(block, optimizer, step, self.run)
            loss = _step_loss(block, call, rows, picked, self.run, generator)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"The loss of block {index} is {float(loss.detach())} at step {step} of {config.steps}: "
                    "reconstruction diverged. Lower `blockwise.lr`; finished blocks are kept."
                )
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for layer in _layers(block):
            set_hardness([layer], layer.surrogate.hard)
            _settle(layer, config.margin)
        block.requires_grad_(False)
        return BlockResult(before, _error(block, call, rows, config))


def reconstruct(student: PreTrainedModel, original: PreTrainedModel, run: BlockRun) -> Reconstruction:
    """Train every block of `student` in turn, in place.

    Of a student that is rounded (`run.rounded`) what is not 1-bit stays so.

    Raises
    ------
    ConversionError
        When `run.init` fits scales that are fixed.
    TrainingError
        When a block's loss is not finite, or a saved block is damaged.
    """
    started = time.perf_counter()
    require_learnable({name: layer.weight_scheme for name, layer in bit_layers(student).items()}, run.init)
    training = BlockTraining.begin(student, original, run)
    blocks, originals = decoder_blocks(student)[1], decoder_blocks(original)[1]
    calls = block_calls(original, run.token_ids.shape[1])
    results = [
        training.one(index, originals[index], calls[index], blocks.__getitem__)
        for index in track(range(len(blocks)), "Reconstructing blocks", len(blocks))
    ]
    return training.finished(results, started)


@torch.no_grad()
def _settle(layer: BitLayer, margin: float) -> None:
    """Move latents away from their thresholds, or the first step of another optimiser flips codes by the thousand."""
    if layer.scale is not None:
        layer.weight.copy_(away_from_thresholds(layer.weight, layer.rounded_scale(), layer.weight_scheme, margin))


def _optimizer(block: nn.Module, run: BlockRun) -> torch.optim.Optimizer:
    block.requires_grad_(False)
    layers, rate = _layers(block), run.config.lr or _rate(block)
    packed = [p for layer in layers for p in (layer.weight, layer.scale) if p is not None]
    norms = [p for module in block.modules() if is_norm(module) for p in module.parameters(recurse=False)]
    others = [layer.bias for layer in layers if layer.bias is not None] + (norms if run.train_norms else [])
    for parameter in (*packed, *others):
        parameter.requires_grad_(True)
    groups: list[dict[str, Any]] = [
        {"params": packed},
        {"params": others, "stored": "bfloat16" if run.rounded else None},
    ]
    return OnePassAdamW(
        [group | {"peak_lr": rate} for group in groups if group["params"]], lr=rate, betas=(0.9, 0.95), weight_decay=0.0
    )


def _rate(block: nn.Module) -> float:
    layers = _layers(block)
    total = sum(float(layer.weight.detach().abs().sum()) / layer.weight_scheme.num_magnitudes for layer in layers)
    return _RATE * total / max(1, sum(layer.weight.numel() for layer in layers))


def _apply_schedules(block: nn.Module, optimizer: torch.optim.Optimizer, step: int, run: BlockRun) -> None:
    steps, schedule = run.config.steps, replace(run.schedule, warmup_fraction=run.config.warmup_fraction)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * lr_factor(step, steps, schedule)
    level = hardness(step, steps, schedule)
    if level is not None:
        set_hardness(_layers(block), level)


def _step_loss(
    block: nn.Module, call: BlockCall, rows: Rows, picked: Tensor, run: BlockRun, generator: torch.Generator
) -> Tensor:
    x, config = rows.student[picked], run.config
    if config.fp_inputs > 0:
        swapped = torch.rand(len(picked), generator=generator) < config.fp_inputs
        x = torch.where(swapped[:, None, None], rows.original[picked], x)
    with arithmetic(x, run.bf16), training_products(run.products), step_attention(block):
        y = run_block(block, x, call)
    return block_loss(y.float(), rows.target[picked], rows.is_real[picked], config.loss)


def block_loss(y: Tensor, target: Tensor, is_real: Tensor, kind: BlockLoss) -> Tensor:
    """Return the relative squared error of `y` against `target`, float32 [R, L, H], over the real tokens [R, L]."""
    lost = (y - target).square().sum(-1)[is_real]
    size = target.square().sum(-1)[is_real]
    tiny = torch.finfo(torch.float32).tiny
    return lost.sum() / size.sum().clamp(min=tiny) if kind == "mse" else (lost / size.clamp(min=tiny)).mean()


@torch.no_grad()
def _error(block: nn.Module, call: BlockCall, rows: Rows, config: BlockwiseConfig) -> float:
    """The loss over some of the rows, in float32, with the quantiser as it stands."""
    few = torch.arange(min(len(rows.student), _MEASURED_ROWS))
    y = torch.cat([run_block(block, rows.student[few[part]], call) for part in batches(len(few), config.batch_rows)])
    return float(block_loss(y, rows.target[few], rows.is_real[few], config.loss))


def _layers(block: nn.Module) -> list[BitLayer]:
    return [module for module in block.modules() if isinstance(module, BitLayer)]
