"""What the C++ model itself refuses, whatever Python has checked before: numbers that no model has."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from bitnet_train.kernels import _core

FREQUENCIES = np.ones(4, np.float32)
SOUND: dict[str, Any] = {
    "hidden": 16,
    "ff": 32,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 8,
    "vocab": 10,
    "max_positions": 64,
    "rms_eps": 1e-6,
    "inv_freq": [FREQUENCIES, FREQUENCIES[:3]],
    "rope_scaling": [1.0, 1.2],
    "layer_ropes": [0, 1, -1],
    "layer_windows": [0, 5, 0],
    "attention_scale": 0.25,
}


NORMS = ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]


def model(**changes: Any) -> Any:
    extension: Any = _core
    return extension.Model(**{**SOUND, **changes})


def test_sound_numbers_are_taken():
    assert not model(norms="both", query_norms="whole", gate="gelu_tanh", logit_soft_cap=30.0).kernels()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 0}, "`hidden` is 0, but must be from 1"),
        ({"ff": 1 << 40}, "`ff` is 1099511627776"),
        ({"kv_heads": 3}, "`kv_heads` is 3"),
        ({"head_dim": 7}, "it must be even"),
        ({"layer_ropes": [], "layer_windows": []}, "`layers` is 0"),
        ({"layer_ropes": [0] * 5000, "layer_windows": [0] * 5000}, "`layers` is 5000"),
        ({"layer_windows": [0]}, "`layer_ropes` has 3 numbers, and `layer_windows` 1"),
        ({"layer_windows": [0, 0, -1]}, "`layer_windows` is -1, below 0"),
        ({"layer_ropes": [0, 2, 0]}, "layer 1 has the rotary positions 2, but there are 2"),
        ({"layer_ropes": [0, -2, 0]}, "`layer_ropes` is -2, below 0"),
        ({"rope_scaling": [1.0]}, "`inv_freq` has 2 arrays, and `rope_scaling` 1 numbers"),
        ({"rope_scaling": [1.0, float("inf")]}, "`rope_scaling` is not finite"),
        ({"inv_freq": [FREQUENCIES, np.ones(5, np.float32)]}, "`inv_freq` has 5 values, .* takes from 1 to 4"),
        ({"inv_freq": [FREQUENCIES, FREQUENCIES[:0]]}, "`inv_freq` has 0 values"),
        ({"inv_freq": [FREQUENCIES, np.full(4, np.nan, np.float32)]}, "a value that is not finite"),
        ({"inv_freq": [FREQUENCIES] * 4, "rope_scaling": [1.0] * 4}, "more rotary positions than layers"),
        ({"rms_eps": float("nan")}, "`rms_eps` must be a finite number from 0"),
        ({"attention_scale": 0.0}, "`attention_scale` must be a finite number above 0"),
        ({"attention_scale": float("nan")}, "`attention_scale`"),
        ({"attention_soft_cap": -1.0}, "`attention_soft_cap` must be a finite number from 0"),
        ({"logit_soft_cap": 1e300}, "`logit_soft_cap`"),
        ({"logit_divisor": 0.0}, "`logit_divisor` must be a finite number above 0"),
        ({"logit_divisor": 1e-300}, "`logit_divisor`"),
        ({"embedding_scale": float("inf")}, "`embedding_scale`"),
        ({"residual_scale": -0.5}, "`residual_scale`"),
        ({"gate": "relu"}, "`gate` is 'relu', but must be 'silu' or 'gelu_tanh'"),
        ({"norms": ""}, "`norms` is '', but must be 'inputs', 'outputs' or 'both'"),
        ({"query_norms": "q"}, "`query_norms` is 'q', but must be 'none', 'heads' or 'whole'"),
        ({"isa": "sse9"}, "no float operations of 'sse9'"),
    ],
    ids=str,
)
def test_numbers_of_no_model_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        model(**changes)


@pytest.mark.parametrize(
    ("norms", "names"),
    [
        ("inputs", ["input_layernorm", "post_attention_layernorm"]),
        ("outputs", ["post_attention_layernorm", "post_feedforward_layernorm"]),
        ("both", NORMS),
    ],
)
def test_a_model_has_the_norms_of_its_kind_and_no_others(norms, names):
    made, taken = model(norms=norms), []
    for name in NORMS:
        with suppress(ValueError):
            made.set_norm(f"model.layers.2.{name}", np.ones(16, np.float32))
            taken.append(name)
    assert taken == names
    with pytest.raises(ValueError, match="is missing"):
        made.finish(1)
