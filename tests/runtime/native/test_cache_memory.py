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
SHAPES = {"q": (512, 16), "k": (512, 16), "v": (512, 16), "o": (16, 512)}

linux = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc")


@pytest.fixture
def model() -> Any:
    """A model with next to no weights, and 25 MB of keys and values for 256 positions."""
    extension: Any = _core
    model = extension.Model(
        "llama",
        hidden=WIDTH,
        ff=WIDTH,
        layers=LAYERS,
        heads=HEADS,
        kv_heads=HEADS,
        head_dim=HEAD_DIM,
        vocab=WIDTH,
        max_positions=512,
        rms_eps=1e-6,
        inv_freq=np.ones(HEAD_DIM // 2, np.float32),
    )

    def put(name: str, shape: tuple[int, int] = (WIDTH, WIDTH)) -> None:
        model.set_dense(name, np.ones(shape, np.float32).view(np.uint8), "float32")

    for index in range(LAYERS):
        layer = f"model.layers.{index}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            model.set_norm(f"{layer}.{name}", np.ones(WIDTH, np.float32))
        for name, shape in SHAPES.items():
            put(f"{layer}.self_attn.{name}_proj", shape)
        for name in ("gate", "up", "down"):
            put(f"{layer}.mlp.{name}_proj")
    model.set_norm("model.norm", np.ones(WIDTH, np.float32))
    put("model.embed_tokens")
    put("lm_head")
    model.finish(1)
    return model


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
