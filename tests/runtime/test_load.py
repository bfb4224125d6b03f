from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from bitnet_train.errors import FormatError
from bitnet_train.kernels.ops import available_isas, forced_isa
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.packed_embedding import PackedEmbedding
from bitnet_train.model.packed_linear import PackedLinear
from bitnet_train.packed import export_packed, read_manifest
from bitnet_train.packed.manifest import SCHEMA, seal
from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, GRANULARITIES, WeightScheme
from bitnet_train.runtime.load import load, load_tokenizer
from tests.fixtures.schemes import CODE_SETS, weight_scheme

TOKENS = torch.randint(0, 256, (3, 19), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def logits(model):
    return model(TOKENS).logits


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATION_SCHEMES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", CODE_SETS)
def test_a_loaded_model_has_the_logits_of_the_trained_one_bit_for_bit(
    make_trained, tmp_path, name, granularity, activation
):
    for learnable, scale_dtype in ((True, "float16"), (False, "float32")):
        scheme = weight_scheme(name, granularity, 32, learnable, scale_dtype)
        model = make_trained(weight=scheme, activation=activation)
        export_packed(model, None, tmp_path / scale_dtype, {})
        assert torch.equal(logits(load(tmp_path / scale_dtype)), logits(model))


@pytest.mark.parametrize("roles", [("attention", "mlp"), ("attention", "mlp", "head"), ("head",)], ids="+".join)
@pytest.mark.parametrize("family", ["llama", "odd", "gpt2"])
def test_every_family_and_a_packed_head_load_exactly(make_trained, tmp_path, family, roles):
    model = make_trained(family, WeightScheme(granularity="group", group_size=16), roles=roles)
    export_packed(model, None, tmp_path / "out", {})
    loaded = load(tmp_path / "out")
    assert torch.equal(logits(loaded), logits(model))
    packed = {name for name, module in loaded.named_modules() if isinstance(module, PackedLinear)}
    assert packed == set(bit_layers(model))
    assert type(loaded) is type(model)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", CODE_SETS)
def test_a_packed_embedding_loads_exactly_with_and_without_the_head_it_was_tied_to(
    make_trained, tmp_path, name, granularity, family
):
    for roles in (("embedding",), ("attention", "mlp", "head", "embedding")):
        model = make_trained(family, weight_scheme(name, granularity, 32, learnable_scale=True), roles=roles)
        out = tmp_path / "-".join(roles)
        export_packed(model, None, out, {})
        loaded = load(out)
        assert torch.equal(logits(loaded), logits(model))
        assert isinstance(loaded.get_input_embeddings(), PackedEmbedding)
        packed = {key for key, part in loaded.named_modules() if isinstance(part, PackedLinear | PackedEmbedding)}
        assert packed == set(bit_layers(model))
        assert loaded.generate(TOKENS[:1, :3], max_new_tokens=2, min_new_tokens=2, do_sample=False).shape == (1, 5)


def test_a_layer_of_another_kind_than_the_config_describes_is_refused(make_trained, tmp_path):
    export_packed(make_trained(activation="none", roles=("head", "embedding")), None, tmp_path / "out", {})
    original = json.loads((tmp_path / "out" / "manifest.json").read_text())
    original.pop("manifest_sha256")
    for kind, message in (
        ("linear", r"kind linear .* and Embedding in"),
        ("embedding", r"kind embedding .* Linear in"),
    ):
        layers = [{**layer, "kind": kind} for layer in original["layers"]]
        (tmp_path / "out" / "manifest.json").write_text(seal({**original, "layers": layers}))
        with pytest.raises(FormatError, match=message):
            load(tmp_path / "out")


def test_every_instruction_set_gives_the_same_logits(exported, trained):
    model = load(exported)
    for isa in available_isas():
        with forced_isa(isa):
            assert torch.equal(logits(model), logits(trained)), isa


def test_a_loaded_model_is_ready_for_inference(exported):
    model = load(exported)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    packed = [module for module in model.modules() if isinstance(module, PackedLinear)]
    assert len(packed) == len(read_manifest(exported).layers)
    assert not any(list(module.parameters()) for module in packed)


def test_the_generation_config_and_attention_of_the_run_come_along(make_trained, tmp_path):
    model = make_trained()
    model.generation_config.max_new_tokens = 5
    model.set_attn_implementation("eager")
    export_packed(model, None, tmp_path / "out", {})
    loaded = load(tmp_path / "out")
    assert loaded.generation_config.max_new_tokens == 5
    assert loaded.config._attn_implementation == "eager"
    prompt = torch.tensor([[1, 2, 3]])
    assert loaded.generate(prompt, do_sample=False).shape[1] <= 8


def test_rotary_frequencies_of_the_run_are_kept_when_the_config_would_give_others(make_trained, tmp_path):
    model = make_trained()
    model.model.rotary_emb.inv_freq.mul_(1.01)  # as after a round trip through bf16
    export_packed(model, None, tmp_path / "out", {})
    assert torch.equal(logits(load(tmp_path / "out")), logits(model))


def test_loading_checks_every_byte_unless_told_not_to(folder):
    data = bytearray((folder / "config.json").read_bytes())
    data[-2:] = b" }"
    (folder / "config.json").write_bytes(data)
    with pytest.raises(FormatError, match=r"config\.json was changed or damaged"):
        load(folder)
    load(folder, verify=False)


def test_a_newer_schema_is_refused_with_the_way_out(folder):
    body = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**body, "schema": SCHEMA + 1}))
    with pytest.raises(FormatError, match=r"written by a newer version.*pip install --upgrade"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 128}, r"config\.json describes"),
        ({"num_hidden_layers": 1}, r"has no module 'model\.layers\.1"),
        ({"num_hidden_layers": 3}, r"The folder has no values for 'model\.layers\.2"),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "a GPT2LMHeadModel, the manifest a Llama"),
        ({"model_type": "no_such_model"}, r"config\.json cannot be used"),
        ({"num_attention_heads": 0}, r"config\.json"),
        ({"hidden_size": "many"}, r"config\.json"),
        ({"vocab_size": 300}, r"model\.embed_tokens\.weight has shape"),
    ],
    ids=str,
)
def test_a_config_of_another_model_is_refused(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(FormatError, match=message):
        load(folder, verify=False)


def test_a_config_cannot_run_code_of_its_own(folder):
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match=r"config\.json cannot be used"):
        load(folder, verify=False)


def test_swapped_layer_shapes_are_named(folder):
    body = json.loads((folder / "manifest.json").read_text())
    body.pop("manifest_sha256")
    body["layers"][0]["num_inputs"] = 96
    (folder / "manifest.json").write_text(seal(body))
    with pytest.raises(FormatError, match=r"model\.layers\.0\.self_attn\.q_proj is 64 x 96 in the manifest"):
        load(folder)


def test_padding_bits_that_are_set_are_refused_and_the_layer_named(make_trained, tmp_path, tamper):
    export_packed(make_trained("odd"), None, tmp_path / "out", {})

    def set_padding(tensors):
        tensors["model.layers.0.mlp.up_proj.planes"][0, 0, 7] = 1

    with pytest.raises(FormatError, match="padding bits"):  # the attacker cannot even compute a hash of the codes
        tamper(tmp_path / "out", set_padding)
    with pytest.raises(FormatError, match=r"model\.layers\.0\.mlp\.up_proj: .*padding bits that are not 0"):
        load(tmp_path / "out", verify=False)


def test_the_tokenizer_comes_from_the_folder_or_its_absence_is_explained(exported, make_trained, tmp_path):
    tokenizer = load_tokenizer(exported)
    assert tokenizer.decode(tokenizer("naïve")["input_ids"]) == "naïve"
    export_packed(make_trained(), None, tmp_path / "out", {})
    with pytest.raises(FormatError, match="exported without a tokenizer"):
        load_tokenizer(tmp_path / "out")


@pytest.mark.slow
def test_a_folder_works_from_anywhere_and_in_another_process(exported, trained, tmp_path):
    moved = shutil.copytree(exported, tmp_path / "elsewhere")
    code = (
        "import sys, torch; from bitnet_train.runtime.load import load; model = load(sys.argv[1]);"
        "torch.save(model(torch.arange(12)[None]).logits.detach(), sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(moved), str(tmp_path / "logits.pt")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(command, check=True, env=environment)
    with torch.no_grad():
        expected = trained(torch.arange(12)[None]).logits
    assert torch.equal(torch.load(tmp_path / "logits.pt", weights_only=True), expected)
