"""The weights of a packed folder in a plain float32 model of transformers: no quantised activations anywhere.

What it computes and what a quantised run of the same weights computes differ by the rounding of activations alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from bitnet_train.packed.source import PackedSource, open_packed


def float_model(folder: Path) -> PreTrainedModel:
    """Return the dense float32 model of the packed folder at `folder`, in evaluation mode."""
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with open_packed(folder) as source:
        missing, unknown = model.load_state_dict(_dense_state(source), strict=False)
    assert not unknown, unknown
    model.tie_weights()
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    assert set(missing) <= tied, missing
    return model.eval()


def _dense_state(source: PackedSource) -> dict[str, Tensor]:
    state = {name: source.dense(name) for name in source.floats if not name.endswith("inv_freq")}
    for name in (*source.layers, *source.tables):
        packed = source.layer(name) if name in source.layers else source.table(name)
        state[f"{name}.weight"] = source.dense(name)
        if packed.bias is not None:
            state[f"{name}.bias"] = packed.bias
    return state
