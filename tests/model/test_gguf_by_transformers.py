"""Architectures that transformers reads for us: nothing of the file is left out without a word."""

import pytest
import torch
from transformers import Starcoder2Config

from bitnet_train.errors import FormatError

from .gguf_files import float_tensor
from .gguf_models import SMALL, load, logits, make_float

ROPE = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}


@pytest.fixture
def made():
    config = Starcoder2Config(**SMALL, rms_norm_eps=1e-5, sliding_window=None, rope_parameters=ROPE)
    metadata = {
        "starcoder2.attention.layer_norm_epsilon": 1e-5,
        "starcoder2.rope.scaling.type": "linear",
        "starcoder2.rope.scaling.factor": 4.0,
    }
    return make_float(config, "starcoder2", metadata=metadata)


def test_another_architecture_has_the_weights_and_the_scaled_positions_of_its_file(made, tmp_path):
    loaded = load(made, tmp_path)
    assert loaded.model.config.rope_parameters == ROPE
    assert torch.equal(logits(loaded.model), logits(made.model))
    assert getattr(loaded.model.config, "quantization_config", None) is None
    loaded.model.float().save_pretrained(tmp_path / "dense")


def test_a_tensor_that_transformers_would_leave_out_is_named(made, tmp_path):
    made.tensors["blk.0.attn_sinks.weight"] = float_tensor(torch.ones(4))
    with pytest.raises(FormatError, match=r"would be left out, among them blk\.0\.attn_sinks\.weight"):
        load(made, tmp_path)


def test_a_tensor_that_transformers_would_make_up_is_named(made, tmp_path):
    del made.tensors["blk.1.attn_k.bias"]
    with pytest.raises(FormatError, match=r"has no values for model\.layers\.1\.self_attn\.k_proj\.bias"):
        load(made, tmp_path)


def test_positions_that_no_config_can_state_are_refused(made, tmp_path):
    made.metadata["starcoder2.rope.scaling.type"] = "dynamic"
    with pytest.raises(FormatError, match=r"in a way that is not read here: .*dynamic"):
        load(made, tmp_path)
