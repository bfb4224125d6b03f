"""Architectures that transformers reads for us: nothing of the file is left out without a word."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2MoeConfig, Starcoder2Config

from bitnet_train.errors import FormatError
from tests.fixtures.gguf_files import float_tensor, llama_metadata
from tests.fixtures.gguf_models import SMALL, Made, gguf, load, logits, make_float

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


@pytest.mark.slow
def test_a_tensor_that_transformers_would_make_up_is_named(made, tmp_path):
    del made.tensors["blk.1.attn_k.bias"]
    with pytest.raises(FormatError, match=r"has no values for model\.layers\.1\.self_attn\.k_proj\.bias"):
        load(made, tmp_path)


def test_positions_that_no_config_can_state_are_refused(made, tmp_path):
    made.metadata["starcoder2.rope.scaling.type"] = "dynamic"
    with pytest.raises(FormatError, match=r"in a way that is not read here: .*dynamic"):
        load(made, tmp_path)


@pytest.mark.slow
@torch.no_grad()
def test_the_experts_of_a_mixture_come_from_tensors_of_their_own(tmp_path):
    config = Qwen2MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2)
    made = make_mixture(config)
    same = load(made, tmp_path).model
    assert torch.equal(logits(same), logits(made.model))


def make_mixture(config):
    """A Qwen 2 mixture: what is one tensor in transformers are two in the file, and a gate of one row is a vector."""
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())
    number = next(value for value, name in gguf.MODEL_ARCH_NAMES.items() if name == "qwen2moe")
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    made = Made(model, llama_metadata(config, "qwen2moe"))
    made.metadata |= {"qwen2moe.expert_count": 4, "qwen2moe.expert_used_count": 2}
    for name, parameter in model.named_parameters():
        module, _, leaf = name.rpartition(".")
        block = f"blk.{module.split('.')[2]}" if ".layers." in name else ""
        if leaf == "gate_up_proj":
            gate, up = parameter.chunk(2, dim=1)
            made.tensors[f"{block}.ffn_gate_exps.weight"] = float_tensor(gate.contiguous())
            made.tensors[f"{block}.ffn_up_exps.weight"] = float_tensor(up.contiguous())
        elif leaf == "down_proj":
            made.tensors[f"{block}.ffn_down_exps.weight"] = float_tensor(parameter)
        elif module.endswith("shared_expert_gate"):
            made.tensors[f"{block}.ffn_gate_inp_shexp.weight"] = float_tensor(parameter[0])
        else:
            made.tensors[f"{names.get_name(module)}.{leaf}"] = float_tensor(parameter)
    return made
