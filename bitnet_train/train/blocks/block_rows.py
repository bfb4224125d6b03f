"""What a reconstruction is asked for, and the hidden states of its text as they go from block to block.

first_rows   x'_0 = x_0 = embedding
aim          t = F_b(x_b)
advance      x_{b+1} = t,   x'_{b+1} = Q_b(x'_b)
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.model.quantized_linear import Products
from bitnet_train.model.start.blocks import BlockCall, embedded, run_block
from bitnet_train.model.start.settings import InitConfig
from bitnet_train.train.blocks.hidden_states import hidden_states
from bitnet_train.train.blocks.settings import BlockwiseConfig
from bitnet_train.train.loop.schedules import ScheduleConfig


@dataclass(frozen=True)
class BlockRun:
    """One reconstruction as it is asked for: on which text, under which settings, and where finished blocks lie."""

    config: BlockwiseConfig
    schedule: ScheduleConfig
    token_ids: Tensor
    """int64 [R, L], right-padded."""
    is_real: Tensor
    """bool [R, L]: which of them are text."""
    scratch: Path
    """Keeps finished blocks, and hidden states beyond `blockwise.memory_mb`; a second run goes on from there."""
    init: InitConfig = field(default_factory=InitConfig)
    """How each block is fitted just before it is trained, see `model.start.initialise`."""
    train_norms: bool = True
    bf16: bool = False
    """Products are bfloat16."""
    products: Products = "float"
    """How the 1-bit linears multiply in training (`model.quantized_linear`)."""
    rounded: bool = False
    """Norms and biases hold the values that will be stored, after every step (`quant.stored`)."""
    seed: int = 0


@dataclass(frozen=True)
class Rows:
    """Hidden states float32 [R, L, H] of the block at hand, and which tokens are real."""

    student: Tensor
    original: Tensor
    target: Tensor
    is_real: Tensor


def in_pieces(token_ids: Tensor, is_real: Tensor, row_tokens: int | None) -> tuple[Tensor, Tensor]:
    """Return rows [R, L] cut into [R L / row_tokens, row_tokens], without those that are padding alone."""
    if row_tokens is None:
        return token_ids, is_real
    token_ids, is_real = token_ids.reshape(-1, row_tokens), is_real.reshape(-1, row_tokens)
    some = is_real.any(1)
    return token_ids[some], is_real[some]


def sprinkled(token_ids: Tensor, is_real: Tensor, share: float, vocabulary: int, seed: int) -> Tensor:
    """Return int64 [R, L] in which random tokens stand in for a share of the real ones."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(token_ids.shape, generator=generator) < share
    others = torch.randint(vocabulary, token_ids.shape, generator=generator)
    return torch.where(chosen & is_real, others, token_ids)


@torch.no_grad()
def first_rows(student: PreTrainedModel, original: PreTrainedModel, run: BlockRun) -> Rows:
    """Return what the first block reads: the embeddings of both models."""
    config = run.config
    embedding: Any = original.get_input_embeddings()
    token_ids = sprinkled(run.token_ids, run.is_real, config.random_tokens, embedding.num_embeddings, run.seed)
    first = embedded(original, token_ids[:1])
    shape = (len(token_ids), token_ids.shape[1], first.shape[-1])
    each_bytes = config.memory_mb * 1_000_000 // 3
    names = ("student", "original", "target")
    made = {name: hidden_states(shape, run.scratch / f"{name}.hidden", each_bytes) for name in names}
    for part in batches(len(token_ids), config.batch_rows):
        made["original"][part] = embedded(original, token_ids[part])
        made["student"][part] = embedded(student, token_ids[part])
    return Rows(**made, is_real=run.is_real)


@torch.no_grad()
def aim(original: nn.Module, call: BlockCall, rows: Rows, run: BlockRun) -> None:
    """Let the full-precision block give what the 1-bit block should."""
    for part in batches(len(rows.original), run.config.batch_rows):
        with arithmetic(rows.original, run.bf16):
            rows.target[part] = run_block(original, rows.original[part], call)


@torch.no_grad()
def advance(block: nn.Module, call: BlockCall, rows: Rows, run: BlockRun) -> None:
    """Turn the inputs of this block into those of the next."""
    for part in batches(len(rows.student), run.config.batch_rows):
        with arithmetic(rows.student, run.bf16):
            rows.student[part] = run_block(block, rows.student[part], call)
    rows.original.copy_(rows.target)


def arithmetic(x: Tensor, bf16: bool) -> AbstractContextManager[Any]:
    """That of training end to end: products in bfloat16 where asked for; hidden states stay float32."""
    return torch.autocast(x.device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def batches(num_rows: int, batch_rows: int) -> list[slice]:
    """Return the rows of each batch; the last may be smaller."""
    return [slice(first, first + batch_rows) for first in range(0, num_rows, batch_rows)]
