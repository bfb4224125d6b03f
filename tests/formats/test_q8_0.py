"""Q8_0: an int8 table goes in and comes out bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from bitnet_train.errors import FormatError
from bitnet_train.formats.ggml import dequantize_blocks
from bitnet_train.formats.q8_0 import BLOCK_BYTES, BLOCK_WEIGHTS, ID, decode_q8_0, encode_q8_0


def table(rows=5, inputs=96):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (rows, inputs), generator=generator, dtype=torch.int8)
    return codes, torch.rand(rows, generator=generator).half()


def test_a_block_is_a_scale_and_32_signed_bytes():
    codes = torch.arange(-16, 16, dtype=torch.int8).reshape(1, 32)
    blocks = encode_q8_0(codes, torch.tensor([0.5]))
    assert blocks.numpy().tobytes() == bytes.fromhex("0038") + codes.numpy().tobytes()


def test_codes_and_the_scale_of_the_row_come_back_from_every_block():
    codes, scale = table()
    read, scales = decode_q8_0(encode_q8_0(codes, scale), 96)
    assert torch.equal(read, codes)
    assert torch.equal(scales, scale.float().reshape(5, 1).expand(5, 3))


def test_the_gguf_package_reads_the_same_values():
    codes, scale = table()
    blocks = encode_q8_0(codes, scale)
    kind = gguf.GGMLQuantizationType.Q8_0
    assert (kind.value, *gguf.GGML_QUANT_SIZES[kind]) == (ID, BLOCK_WEIGHTS, BLOCK_BYTES)
    ours = dequantize_blocks(*decode_q8_0(blocks, 96)).numpy()
    assert np.array_equal(gguf.quants.dequantize(blocks.numpy(), kind), ours)


@pytest.mark.parametrize(
    ("codes", "scale", "message"),
    [
        (torch.ones(2, 33, dtype=torch.int8), torch.ones(2), "multiple of 32"),
        (torch.ones(2, 32), torch.ones(2), "must be int8"),
        (torch.ones(2, 32, dtype=torch.int8), torch.ones(3), r"scales \[V\]"),
        (torch.ones(2, 32, dtype=torch.int8), torch.tensor([1.0, 0.1]), "no finite float16"),
        (torch.ones(2, 32, dtype=torch.int8), torch.tensor([1.0, float("inf")]), "no finite float16"),
    ],
)
def test_what_does_not_fit_is_refused(codes, scale, message):
    with pytest.raises(FormatError, match=message):
        encode_q8_0(codes, scale)


@pytest.mark.parametrize("blocks", [torch.zeros(2, 33, dtype=torch.uint8), torch.zeros(2, 34)])
def test_blocks_of_another_shape_are_refused(blocks):
    with pytest.raises(FormatError, match="must be uint8"):
        decode_q8_0(blocks, 32)
