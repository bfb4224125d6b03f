"""A weight that is no number is refused by its name, in every way in; a table that is missing under a tie too."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitnet_train.errors import FormatError
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.converted import ConversionRecord, save_converted
from tests.fixtures.families import tiny_model

NORM = "model.layers.0.input_layernorm.weight"


@pytest.fixture
def folder(tmp_path, byte_tokenizer):
    tiny_model("smollm").save_pretrained(tmp_path / "model")
    byte_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def spoil(path, name, value):
    tensors = load_file(path)
    tensors[name].view(-1)[3] = value
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [NORM, "model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"])
def test_a_folder_with_a_weight_that_is_not_finite_is_refused(name, value, folder):
    spoil(folder / "model.safetensors", name, value)
    with pytest.raises(FormatError, match=rf"{name} holds values that are not finite"):
        load_pretrained(str(folder))


def test_a_merged_folder_is_held_to_the_same(tmp_path, byte_tokenizer, make_trained):
    model = make_trained()
    save_converted(model, ConversionRecord(tuple(bit_layers(model))), tmp_path / "merged", byte_tokenizer)
    load_pretrained(str(tmp_path / "merged"))
    spoil(tmp_path / "merged" / "model.safetensors", NORM, float("nan"))
    with pytest.raises(FormatError, match=rf"{NORM} holds values that are not finite"):
        load_pretrained(str(tmp_path / "merged"))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight"])
def test_a_tensor_that_is_missing_where_the_head_is_tied_is_named(name, sharded, folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    file = "model-00001-of-00001.safetensors" if sharded else "model.safetensors"
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / file, metadata={"format": "pt"})
    if sharded:
        index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, file)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match=rf"has no values for .*{name}"):
        load_pretrained(str(folder))


def test_values_whose_sum_is_beyond_a_float_are_finite(folder):
    spoil(folder / "model.safetensors", NORM, torch.finfo(torch.float32).max)
    load_pretrained(str(folder))
