"""Q8_0 of ggml: 32 int8 codes under one float16 scale. An int8 table goes into it bit for bit.

    block of 34 bytes, little-endian    d (float16), then code j as a signed byte 2 + j;   weight = code * d

A table has one scale a row (`quant/int8_table.py`), so every block of a row repeats it. Source: ggml-common.h of
llama.cpp. Shapes: V rows, K weights a row, B = K / 32 blocks a row.
"""

from __future__ import annotations

import numpy as np
import torch

from bitnet_train.errors import FormatError

ID = 8
"""`enum ggml_type`."""
BLOCK_WEIGHTS = 32
BLOCK_BYTES = 34


def encode_q8_0(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Write codes int8 [V, K], K a multiple of 32, and scales [V] into blocks uint8 [V, 34 K / 32].

    Raises FormatError for another dtype or shape, or a scale that is no float16.
    """
    if codes.dtype != torch.int8 or codes.ndim != 2 or codes.shape[1] % BLOCK_WEIGHTS or scale.shape != codes.shape[:1]:
        raise FormatError(
            f"Codes for q8_0 must be int8 [V, K] with K a multiple of {BLOCK_WEIGHTS} and scales [V]; got "
            f"{str(codes.dtype).removeprefix('torch.')} {list(codes.shape)} and {list(scale.shape)}."
        )
    num_rows, num_inputs = codes.shape
    half = scale.to(torch.float16)
    if not torch.equal(half.float(), scale.float()) or not bool(torch.isfinite(half).all()):
        raise FormatError("A scale of an int8 table is no finite float16, and a q8_0 block has no other.")
    blocks = np.empty((num_rows, num_inputs // BLOCK_WEIGHTS, BLOCK_BYTES), np.uint8)
    blocks[..., :2] = half.numpy(force=True).astype("<f2")[:, np.newaxis, np.newaxis].view(np.uint8)
    blocks[..., 2:] = (
        codes.numpy(force=True).view(np.uint8).reshape(num_rows, num_inputs // BLOCK_WEIGHTS, BLOCK_WEIGHTS)
    )
    return torch.from_numpy(blocks.reshape(num_rows, num_inputs // BLOCK_WEIGHTS * BLOCK_BYTES))


def decode_q8_0(blocks: torch.Tensor, num_inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Read blocks uint8 [V, 34 K / 32]: codes int8 [V, K] and scales float32 [V, B].

    Raises FormatError for another dtype or shape.
    """
    row_bytes = num_inputs // BLOCK_WEIGHTS * BLOCK_BYTES
    fits = blocks.dtype == torch.uint8 and blocks.ndim == 2 and blocks.shape[1] == row_bytes
    if not fits or num_inputs % BLOCK_WEIGHTS:
        raise FormatError(
            f"Blocks of q8_0 with {num_inputs} weights a row must be uint8 [V, {BLOCK_BYTES} for every "
            f"{BLOCK_WEIGHTS} weights]; got {list(blocks.shape)}. The tensor is damaged, or of another type."
        )
    raw = np.ascontiguousarray(blocks.numpy(force=True)).reshape(
        blocks.shape[0], num_inputs // BLOCK_WEIGHTS, BLOCK_BYTES
    )
    scale = raw[..., :2].copy().view("<f2")[..., 0].astype(np.float32)
    codes = raw[..., 2:].reshape(blocks.shape[0], num_inputs).view(np.int8)
    return torch.from_numpy(codes.copy()), torch.from_numpy(scale)
