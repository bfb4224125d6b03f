"""A Hugging Face folder has every tensor of its model and no other, or it is refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.importers.load import load_mapped, load_pretrained
from tests.fixtures.families import logits, tiny_model

READERS = [load_pretrained, load_mapped]


@pytest.fixture
def folder(tmp_path, byte_tokenizer):
    tiny_model().save_pretrained(tmp_path / "model")
    byte_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(folder, do):
    tensors = load_file(folder / "model.safetensors")
    do(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.norm.weight",
        "model.layers.1.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
    ],
)
def test_a_missing_tensor_is_named(read, name, folder):
    change(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(FormatError, match=rf"has no values for {name}, which LlamaForCausalLM needs"):
        read(str(folder))


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "model.layers.2.mlp.up_proj.weight", "sinks"])
def test_a_tensor_without_a_place_is_named(read, name, folder):
    change(folder, lambda tensors: tensors.update({name: torch.zeros(64)}))
    with pytest.raises(FormatError, match=rf"LlamaForCausalLM has no place for.*: {name}\."):
        read(str(folder))


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_tensor_of_another_shape_is_named_with_both_shapes(read, folder):
    change(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(63)}))
    with pytest.raises(FormatError, match=r"model\.norm\.weight: 63 for 64"):
        read(str(folder))


def test_tables_that_a_model_computes_itself_may_lie_in_the_folder(folder):
    old = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change(folder, lambda tensors: tensors.update({old: torch.ones(8)}))
    assert torch.equal(logits(load_pretrained(str(folder)).model), logits(tiny_model()))


def test_a_folder_that_is_quantised_in_another_way_is_refused_before_it_is_read(folder):
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ConversionError, match="is quantised in a way that is not read here"):
        load_pretrained(str(folder))


@pytest.mark.parametrize("token", [97, 1000, -1])
def test_a_padding_token_beyond_the_embedding_does_not_keep_a_model_from_loading(token, folder):
    edit_config(folder, pad_token_id=token)
    model = load_pretrained(str(folder)).model
    assert model.config.pad_token_id is None
    assert torch.equal(logits(model), logits(tiny_model()))


@pytest.mark.parametrize("differs", [False, True], ids=["the same head", "another head"])
def test_a_head_beside_a_config_that_ties_it_is_the_one_that_is_used_now_and_later(differs, tmp_path, byte_tokenizer):
    tiny_model("smollm").save_pretrained(tmp_path)
    byte_tokenizer.save_pretrained(tmp_path)
    embedding = "model.embed_tokens.weight"
    change(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors[embedding] + float(differs)}))
    model = load_pretrained(str(tmp_path)).model
    assert model.config.tie_word_embeddings is not differs
    assert torch.equal(logits(model), logits(tiny_model("smollm"))) is not differs
    model.save_pretrained(tmp_path / "again")
    byte_tokenizer.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(load_pretrained(str(tmp_path / "again")).model), logits(model))
