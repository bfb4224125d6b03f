"""GGUF files written in plain loops from the published layouts, not by what is tested.

Sources: docs/gguf.md, ggml-common.h and ggml-quants.c of llama.cpp.
"""

import struct
from dataclasses import dataclass

import numpy as np
import torch

ALIGNMENT = 32
TYPES = {"F32": 0, "F16": 1, "Q8_0": 8, "TQ1_0": 34, "TQ2_0": 35, "BF16": 30, "Q1_0": 41, "Q2_0": 42}
BLOCKS = {"Q1_0": 128, "Q2_0": 64, "TQ1_0": 256, "TQ2_0": 256, "Q8_0": 32}


@dataclass
class Tensor:
    """A tensor of a file: shape with the outermost size first, and its bytes."""

    type_id: int
    shape: tuple[int, ...]
    data: bytes


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(content):
    """Type number and bytes of a metadata value."""
    if isinstance(content, bool):
        return struct.pack("<I?", 7, content)
    if isinstance(content, int):
        return struct.pack("<II", 4, content) if 0 <= content < 2**32 else struct.pack("<Iq", 11, content)
    if isinstance(content, float):
        return struct.pack("<If", 6, content)
    if isinstance(content, str):
        return struct.pack("<I", 8) + text(content)
    if isinstance(content[0], str):
        return struct.pack("<IIQ", 9, 8, len(content)) + b"".join(text(item) for item in content)
    return struct.pack(f"<IIQ{len(content)}i", 9, 5, len(content), *content)


def gguf_bytes(metadata, tensors, version=3):
    """The content of a file; `metadata` and `tensors` by name, in order."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for name, content in metadata.items():
        head += text(name) + value(content)
    offset, data = 0, b""
    for name, tensor in tensors.items():
        head += text(name) + struct.pack("<I", len(tensor.shape))
        head += b"".join(struct.pack("<Q", size) for size in reversed(tensor.shape))
        head += struct.pack("<IQ", tensor.type_id, offset)
        padded = tensor.data + b"\0" * (-len(tensor.data) % ALIGNMENT)
        data, offset = data + padded, offset + len(padded)
    return head + b"\0" * (-len(head) % ALIGNMENT) + data


def float_tensor(values, kind="F32"):
    """Floats in one of the plain types, or in Q8_0."""
    shape = tuple(values.shape)
    if kind == "F32":
        data = values.float().numpy().tobytes()
    elif kind == "F16":
        data = values.half().numpy().tobytes()
    elif kind == "BF16":
        data = values.bfloat16().view(torch.int16).numpy().tobytes()
    else:
        data = b"".join(_q8_0(row) for row in values.float().numpy().reshape(-1, 32))
    return Tensor(TYPES[kind], shape, data)


def _q8_0(block):
    scale = np.float16(np.abs(block).max() / 127)
    quants = np.zeros(32) if scale == 0 else np.round(block / np.float32(scale))
    return struct.pack("<e", scale) + np.clip(quants, -127, 127).astype(np.int8).tobytes()


def one_bit_tensor(codes, scale, kind):
    """Codes int8 [N, K] and one scale a block [N, K / block]."""
    block, out = BLOCKS[kind], []
    for row, scales in zip(codes.tolist(), scale.tolist(), strict=True):
        for index, number in enumerate(scales):
            out.append(_BLOCK[kind](row[index * block : (index + 1) * block], struct.pack("<e", number)))
    return Tensor(TYPES[kind], tuple(codes.shape), b"".join(out))


def _q1_0(codes, scale):
    quants = [0] * 16
    for j, code in enumerate(codes):
        quants[j // 8] |= (code > 0) << (j % 8)
    return scale + bytes(quants)


def _q2_0(codes, scale):
    quants = [0] * 16
    for j, code in enumerate(codes):
        quants[j // 4] |= (code + 1) << 2 * (j % 4)
    return scale + bytes(quants)


def _tq1_0(codes, scale):
    def byte(digits):
        number = 0
        for digit in digits:
            number = number * 3 + digit + 1
        return (number * 256 + 242) // 243

    quants = [byte([codes[m + 32 * n] for n in range(5)]) for m in range(32)]
    quants += [byte([codes[160 + m + 16 * n] for n in range(5)]) for m in range(16)]
    quants += [byte([codes[240 + m + 4 * n] for n in range(4)] + [-1]) for m in range(4)]
    return bytes(quants) + scale


def _tq2_0(codes, scale):
    quants = [0] * 64
    for half in range(2):
        for m in range(32):
            for n in range(4):
                quants[32 * half + m] |= (codes[128 * half + m + 32 * n] + 1) << 2 * n
    return bytes(quants) + scale


_BLOCK = {"Q1_0": _q1_0, "Q2_0": _q2_0, "TQ1_0": _tq1_0, "TQ2_0": _tq2_0}


def tokenizer_metadata():
    """A byte-level vocabulary of 256 bytes, two merges, and an end and a padding token: 260 in all."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*letters, "th", "the", "<end>", "<pad>"],
        "tokenizer.ggml.token_type": [1] * 258 + [3] * 2,
        "tokenizer.ggml.merges": ["t h", "th e"],
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.ggml.bos_token_id": 258,
        "tokenizer.ggml.padding_token_id": 259,
    }


VOCABULARY = 260


def llama_metadata(config, architecture="llama"):
    """The keys of a decoder of this Hugging Face config."""
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    sizes = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_size,
        "attention.value_length": head_size,
        "rope.dimension_count": head_size,
        "rope.freq_base": float(rope["rope_theta"]),
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
    }
    named = {f"{architecture}.{key}": value for key, value in sizes.items()}
    return {"general.architecture": architecture, "general.name": "made here", **named, **tokenizer_metadata()}


def rotated_rows(rows, num_heads):
    """Rows of a query or key as llama.cpp's `llama` wants them: the two halves of a head interleaved."""
    out, size = [], len(rows) // num_heads
    for head in range(num_heads):
        for pair in range(size // 2):
            for half in range(2):
                out.append(rows[head * size + half * (size // 2) + pair])
    return torch.stack(out)
