from __future__ import annotations

import json

import pytest

from bitnet_train.errors import FormatError
from bitnet_train.kernels import _core, isa
from bitnet_train.packed import export_packed
from bitnet_train.packed.manifest import seal
from bitnet_train.runtime.native.support import reason_against


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def change_manifest(folder, change):
    body = json.loads((folder / "manifest.json").read_text())
    body.pop("manifest_sha256")
    change(body)
    (folder / "manifest.json").write_text(seal(body))


def test_every_family_fits(family_folder):
    assert reason_against(family_folder) is None


@pytest.mark.parametrize("roles", [("attention",), ("mlp", "head"), ("embedding",), ("attention", "embedding", "head")])
@pytest.mark.parametrize("family", ["llama", "mistral_without"])
def test_any_choice_of_packed_layers_fits(make_folder, family, roles):
    assert reason_against(make_folder(family, roles=roles, tokenizer=False)) is None


@pytest.mark.parametrize(
    ("family", "tables"),
    [
        ("llama", {"embedding": "int8"}),
        ("llama", {"head": "int8"}),
        ("llama", {"embedding": "int8", "head": "int8"}),
        ("qwen3", {"embedding": "int8", "head": "int8"}),
        ("llama", {"embedding": "int4", "head": "int4"}),
        ("llama", {"embedding": "int5", "head": "int4"}),
    ],
)
def test_int8_tables_fit(make_folder, family, tables):
    assert reason_against(make_folder(family, tokenizer=False, **tables)) is None


def test_the_bundled_model_fits(pretrained_folder):
    assert reason_against(pretrained_folder) is None


def test_float_activations_and_another_architecture_do_not(make_folder, make_trained, tmp_path):
    reason = reason_against(make_folder(activation="none"))
    assert reason == "model.layers.0.self_attn.q_proj takes float activations (`activation.name=none`)"
    export_packed(make_trained("gpt2"), None, tmp_path / "gpt2", {})
    assert str(reason_against(tmp_path / "gpt2")).startswith("GPT2LMHeadModel is not one of LlamaForCausalLM")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_act": "relu"}, "its activation function is 'relu'"),
        ({"rope_parameters": {"rope_type": "strange", "factor": 2.0}}, "rotary embedding is of type 'strange'"),
        ({"num_hidden_layers": 1}, "its tensor 'model.layers.1.input_layernorm.weight' has no place"),
    ],
    ids=str,
)
def test_the_reason_is_in_words(damaged, changes, reason):
    change_config(damaged, **changes)
    assert reason in str(reason_against(damaged))


def test_frequencies_that_are_missing_are_a_reason(damaged):
    change_manifest(damaged, lambda body: body["tensors"].pop("model.rotary_emb.inv_freq"))
    assert "no rotary frequencies" in str(reason_against(damaged))


def test_an_extension_that_is_missing_or_old_is_a_reason(make_folder, monkeypatch):
    folder = make_folder()
    monkeypatch.delattr(_core, "Model")
    assert reason_against(folder) == "the compiled extension is older than this package: install it again"
    monkeypatch.setattr(isa, "core", None)
    assert reason_against(folder) == "the compiled extension is missing from this installation"


def test_a_forced_reference_kernel_is_a_reason(make_folder):
    with isa.forced_isa("reference"):
        assert reason_against(make_folder()) == "the reference kernel is forced, which is not native"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 3}, r"The folder has no values for 'model\.layers\.2\.input_layernorm\.weight'"),
        ({"num_hidden_layers": 1 << 30}, "`num_hidden_layers=1073741824`, and the manifest has"),
        ({"hidden_size": 128, "head_dim": 16}, r"model\.embed_tokens\.weight is float32 \[258, 64\] in the manifest"),
        (
            {"intermediate_size": 100},
            r"gate_proj is of kind linear and 96 x 64 in the manifest, and linear and 100 x 64",
        ),
        ({"head_dim": 32}, r"inv_freq is float32 \[8\] in the manifest, and .* needs \[16\]"),
        ({"vocab_size": 257}, r"model\.embed_tokens\.weight"),
        ({"model_type": "mistral"}, "Files of two folders were mixed"),
    ],
    ids=str,
)
def test_a_config_of_another_model_is_damage_and_no_reason(damaged, changes, message):
    change_config(damaged, **changes)
    with pytest.raises(FormatError, match=message):
        reason_against(damaged)


def test_an_integer_tensor_where_floats_belong_is_damage(damaged):
    change_manifest(damaged, lambda body: body["tensors"]["model.norm.weight"].update(dtype="int64"))
    with pytest.raises(FormatError, match=r"model\.norm\.weight is int64 \[64\] in the manifest"):
        reason_against(damaged)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"it has no manifest\.json"):
        reason_against(tmp_path)
