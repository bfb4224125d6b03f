"""What keys and values take of the system, by a cache so large that nothing else of a process is near it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_train.kernels import _core
from bitnet_train.runtime.memory import resident_bytes

WIDTH, LAYERS, HEADS, HEAD_DIM = 16, 24, 8, 64
PAGE_BYTES = 256 * LAYERS * HEADS * 2 * HEAD_DIM * 4  # 25 MB

linux = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc")


def made(layers: int, heads: int, positions: int) -> Any:
    """Return a model with next to no weights but keys and values."""
    extension: Any = _core
    inner = heads * HEAD_DIM
    model = extension.Model(
        hidden=WIDTH,
        ff=WIDTH,
        heads=heads,
        kv_heads=heads,
        head_dim=HEAD_DIM,
        vocab=WIDTH,
        max_positions=positions,
        rms_eps=1e-6,
        inv_freq=[np.ones(HEAD_DIM // 2, np.float32)],
        rope_scaling=[1.0],
        layer_ropes=[0] * layers,
        layer_windows=[0] * layers,
        attention_scale=HEAD_DIM**-0.5,
    )

    def put(name: str, shape: tuple[int, int] = (WIDTH, WIDTH)) -> None:
        model.set_dense(name, np.ones(shape, np.float32).view(np.uint8), "float32")

    for index in range(layers):
        layer = f"model.layers.{index}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            model.set_norm(f"{layer}.{name}", np.ones(WIDTH, np.float32))
        for name in "qkv":
            put(f"{layer}.self_attn.{name}_proj", (inner, WIDTH))
        put(f"{layer}.self_attn.o_proj", (WIDTH, inner))
        for name in ("gate", "up", "down"):
            put(f"{layer}.mlp.{name}_proj")
    model.set_norm("model.norm", np.ones(WIDTH, np.float32))
    put("model.embed_tokens")
    put("lm_head")
    model.finish(1)
    return model


@pytest.fixture
def model() -> Any:
    """A model with 25 MB of keys and values for 256 positions."""
    return made(LAYERS, HEADS, 512)


def highest_resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


@linux
@pytest.mark.parametrize("cache_dtype", ["float32", "int8"])
def test_a_long_prompt_is_read_in_blocks_without_a_score_for_each_pair_of_tokens(cache_dtype):
    length = 4096  # scores of all pairs are 67 MB for each head
    model = made(1, 2, length)
    sequence = model.new_sequence(length, cache_dtype)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # what is resident now is the highest from here on
    except OSError:
        pytest.skip("/proc/self/clear_refs is closed")
    before = highest_resident_bytes()
    model.forward([sequence], [np.arange(length, dtype=np.int32) % WIDTH])
    assert highest_resident_bytes() - before < sequence.bytes + (8 << 20)


@linux
def test_a_short_sequence_takes_memory_as_it_grows_also_after_others(model):
    sequence = model.new_sequence(512)
    before = resident_bytes()
    assert before is not None
    for _ in range(6):  # a heap clears what it hands out again, and so would take all of it
        sequence.truncate(0)
        model.forward([sequence], [np.array([3], np.int32)])
        assert sequence.bytes == PAGE_BYTES
        assert (resident_bytes() or 0) - before < PAGE_BYTES / 2


@linux
def test_a_forgotten_sequence_takes_no_memory(model):
    sequence = model.new_sequence(512)
    model.forward([sequence], [np.zeros(250, np.int32)])
    full = resident_bytes()
    sequence.truncate(0)
    assert full is not None
    assert full - (resident_bytes() or 0) > PAGE_BYTES / 2
