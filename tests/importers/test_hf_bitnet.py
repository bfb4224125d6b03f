"""Folders with `quant_method: bitnet`, written by the tests, packed by transformers, computed by transformers."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitNetConfig, LlamaConfig
from transformers.integrations.bitnet import WeightQuant, pack_weights

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import export_as
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.bit_lora import attach
from bitnet_train.model.merge import merge
from bitnet_train.model.settings import AdapterConfig
from bitnet_train.packed.writer import export_packed
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme

pytestmark = pytest.mark.usefixtures("uncompiled")

SIZES = {
    "vocab_size": 258,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "pad_token_id": 257,
}
LLAMA = LlamaConfig(**SIZES, tie_word_embeddings=False)
BIASED = LlamaConfig(**SIZES, tie_word_embeddings=False, attention_bias=True)
TWO_B = BitNetConfig(**SIZES, tie_word_embeddings=True, hidden_act="relu2")
CONVENTIONS = {
    "falcon-e": (LLAMA, {"linear_class": "bitlinear"}),
    "hf1bitllm": (BIASED, {}),
    "offline": (LLAMA, {"linear_class": "autobitlinear", "quantization_mode": "offline"}),
    "offline biased": (BIASED, {"linear_class": "autobitlinear", "quantization_mode": "offline"}),
    "2B-4T": (TWO_B, {"linear_class": "autobitlinear", "quantization_mode": "offline"}),
    "online": (LLAMA, {"linear_class": "autobitlinear", "quantization_mode": "online"}),
    "2B-4T-bf16": (TWO_B, {"linear_class": "autobitlinear", "quantization_mode": "online"}),
}
PACKED = [name for name in CONVENTIONS if "online" not in name and "bf16" not in name]


def random_codes(shape, seed):
    return torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed)).to(torch.int8)


@torch.no_grad()
def make(folder, name, tokenizer, extra=None):
    """Write the folder; return codes and scale of every 1-bit layer, as the file has them."""
    config, quantization = CONVENTIONS[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    inverse = quantization.get("linear_class", "bitlinear") == "bitlinear"
    tensors, expected = {}, {}
    for index, (key, parameter) in enumerate(model.named_parameters()):
        module, _, leaf = key.rpartition(".")
        is_linear = leaf == "weight" and module.endswith("_proj")
        if is_linear and quantization.get("quantization_mode") != "online":
            scale = 2.0**-6 * (1 + index / 64)  # exact, and so is its inverse in the file's float32 as far as it goes
            codes = random_codes(tuple(parameter.shape), index)
            tensors[key] = pack_weights(codes.clone())
            stored = torch.tensor([1 / scale if inverse else scale])
            tensors[f"{module}.weight_scale"] = stored
            expected[module] = (codes, scale)
        elif parameter.ndim == 1:
            tensors[key] = (parameter + 0.1 * torch.randn_like(parameter)).contiguous()
        else:
            tensors[key] = parameter.clone()
    folder.mkdir()
    content = {**config.to_dict(), "architectures": [type(model).__name__], "dtype": "float32"}
    content["quantization_config"] = {"quant_method": "bitnet", **quantization, **(extra or {})}
    (folder / "config.json").write_text(json.dumps(content))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
    return expected


def change(folder, **values):
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in values.items():
        tensors[name] = tensor
    save_file(
        {key: tensor for key, tensor in tensors.items() if tensor is not None},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def edit_config(folder, **values):
    content = json.loads((folder / "config.json").read_text())
    content.update(values)
    (folder / "config.json").write_text(json.dumps(content))


@torch.no_grad()
def logits(model):
    ids = torch.randint(3, 250, (2, 12), generator=torch.Generator().manual_seed(0))
    return model.eval()(input_ids=ids).logits


def theirs(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    return logits(model)


@pytest.fixture(params=CONVENTIONS)
def convention(request):
    return request.param


def test_logits_are_those_of_transformers(convention, tmp_path, byte_tokenizer):
    make(tmp_path / "model", convention, byte_tokenizer)
    loaded = load_pretrained(str(tmp_path / "model"))
    assert len(loaded.record.layers) == 14
    assert loaded.record.activation == ActivationScheme("int8")
    assert not loaded.model.training
    assert getattr(loaded.model.config, "quantization_config", None) is None
    assert torch.allclose(logits(loaded.model), theirs(tmp_path / "model"), atol=2e-5)


@pytest.mark.parametrize("name", PACKED)
def test_codes_and_scales_are_those_of_the_file(name, tmp_path, byte_tokenizer):
    expected = make(tmp_path / "model", name, byte_tokenizer)
    loaded = load_pretrained(str(tmp_path / "model"))
    assert loaded.record.weight == WeightScheme("ternary", "tensor", learnable_scale=True)
    assert loaded.record.selection.roles == ("attention", "mlp")
    for module, layer in bit_layers(loaded.model).items():
        codes, scale = layer.quantized()
        assert torch.equal(codes, expected[module][0]), module
        assert scale.tolist() == [[expected[module][1]]], module


def test_the_sub_norms_of_2b_4t_come_along(tmp_path, byte_tokenizer):
    make(tmp_path / "model", "2B-4T", byte_tokenizer)
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    model = load_pretrained(str(tmp_path / "model")).model
    name = "model.layers.1.self_attn.attn_sub_norm.weight"
    assert torch.equal(model.get_parameter(name), tensors[name])
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_online_latents_stay_and_their_codes_are_those_of_transformers(tmp_path, byte_tokenizer):
    make(tmp_path / "model", "online", byte_tokenizer)
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    for module, layer in bit_layers(load_pretrained(str(tmp_path / "model")).model).items():
        latent = tensors[f"{module}.weight"]
        codes, scale = layer.quantized()
        assert torch.equal(layer.weight, latent)
        assert torch.allclose(codes * scale, WeightQuant.apply(latent), rtol=1e-6, atol=0)


def test_layers_that_the_folder_keeps_are_float(tmp_path, byte_tokenizer):
    make(tmp_path / "model", "offline", byte_tokenizer, {"modules_to_not_convert": ["lm_head", "model.layers.0.*"]})
    kept = [name for name in load_file(tmp_path / "model" / "model.safetensors") if ".0." in name]
    plain = {name: torch.randn(64, 96 if "down" in name else 64) for name in kept if name.endswith("proj.weight")}
    plain |= {name: torch.randn(96, 64) for name in plain if "gate" in name or "up" in name}
    plain |= {name: torch.randn(32, 64) for name in plain if "k_proj" in name or "v_proj" in name}
    change(tmp_path / "model", **plain, **{name: None for name in kept if name.endswith("_scale")})
    loaded = load_pretrained(str(tmp_path / "model"))
    assert len(loaded.record.layers) == 7
    assert all(name.startswith("model.layers.1.") for name in loaded.record.layers)
    assert torch.allclose(logits(loaded.model), theirs(tmp_path / "model"), atol=2e-5)


@pytest.mark.parametrize("name", PACKED)
def test_packed_and_written_again_every_byte_of_the_weights_is_that_of_the_folder(name, tmp_path, byte_tokenizer):
    make(tmp_path / "model", name, byte_tokenizer)
    loaded = load_pretrained(str(tmp_path / "model"))
    export_packed(loaded.model, loaded.tokenizer, tmp_path / "packed")
    linear_class = CONVENTIONS[name][1].get("linear_class", "bitlinear")
    export_as("hf_bitnet", tmp_path / "packed", tmp_path / "out", ExportOptions(linear_class=linear_class))
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("model", "out"))
    for key, tensor in before.items():
        if tensor.dtype == torch.uint8:
            assert torch.equal(after[key], tensor), key


def test_a_lora_inside_trains_on_the_folder_s_weights_and_merges_into_them(tmp_path, byte_tokenizer):
    make(tmp_path / "model", "falcon-e", byte_tokenizer)
    adapted = attach(load_pretrained(str(tmp_path / "model")).model, AdapterConfig(rank=4)).train()
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0)
    ids = torch.randint(3, 250, (2, 16), generator=torch.Generator().manual_seed(1))
    for _ in range(4):
        adapted(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = logits(adapted)
    assert torch.equal(logits(merge(adapted)), trained)


def no_scale(folder):
    change(folder, **{"model.layers.1.mlp.up_proj.weight_scale": None})


def two_scales(folder):
    change(folder, **{"model.layers.1.mlp.up_proj.weight_scale": torch.ones(2)})


def nan_scale(folder):
    change(folder, **{"model.layers.1.mlp.up_proj.weight_scale": torch.tensor([float("nan")])})


def negative_scale(folder):
    change(folder, **{"model.layers.1.mlp.up_proj.weight_scale": torch.tensor([-1.0])})


def pattern_11(folder):
    change(folder, **{"model.layers.1.mlp.up_proj.weight": torch.full((24, 64), 255, dtype=torch.uint8)})


def latents_offline(folder):
    change(folder, **{"model.layers.1.mlp.up_proj.weight": torch.randn(96, 64)})


def short_weight(folder):
    change(folder, **{"model.layers.1.mlp.up_proj.weight": torch.zeros((23, 64), dtype=torch.uint8)})


def missing_norm(folder):
    change(folder, **{"model.norm.weight": None})


def strange_tensor(folder):
    change(folder, strange=torch.ones(2))


def packed_head(folder):
    change(folder, **{"lm_head.weight": torch.zeros((64, 64), dtype=torch.uint8)})


def norm_inside(folder):
    edit_config(folder, quantization_config={"quant_method": "bitnet", "use_rms_norm": True})


def unknown_class(folder):
    edit_config(folder, quantization_config={"quant_method": "bitnet", "linear_class": "trilinear"})


def endless_pattern(folder):
    edit_config(folder, quantization_config={"quant_method": "bitnet", "modules_to_not_convert": ["(.+)+$"]})


def many_layers(folder):
    edit_config(folder, num_hidden_layers=2**31)


def wide_model(folder):
    edit_config(folder, hidden_size=2**40)


def unknown_model(folder):
    edit_config(folder, model_type="no-such-model")


def no_json(folder):
    (folder / "config.json").write_text('{"quantization_config": ')


def deep_json(folder):
    (folder / "config.json").write_text("[" * 100_000)


def half_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def long_header(folder):
    path = folder / "model.safetensors"
    path.write_bytes((2**63).to_bytes(8, "little") + path.read_bytes()[8:])


def no_weights(folder):
    (folder / "model.safetensors").unlink()


DAMAGE = {
    no_scale: r"has no model\.layers\.1\.mlp\.up_proj\.weight_scale",
    two_scales: r"up_proj\.weight_scale is torch\.float32 \[2\]; one number",
    nan_scale: r"up_proj\.weight_scale: .*finite number above 0, not nan",
    negative_scale: r"up_proj\.weight_scale: .*above 0, not -1\.0",
    pattern_11: r"up_proj\.weight: .*bits 11",
    latents_offline: r"up_proj\.weight is neither packed nor made of",
    short_weight: r"up_proj\.weight is 92 x 64; the config of its model says 96 x 64",
    missing_norm: r"needs model\.norm\.weight",
    strange_tensor: "has no place for strange",
    packed_head: r"lm_head\.weight is torch\.uint8, but its layer is none of the 14",
    norm_inside: "`use_rms_norm`",
    unknown_class: "`linear_class=trilinear`, `quantization_mode=offline` .*Allowed: bitlinear, autobitlinear",
    endless_pattern: "`modules_to_not_convert` in config.json must be a list of module names",
    many_layers: "`num_hidden_layers` is 2147483648",
    wide_model: "`hidden_size` is 1099511627776",
    unknown_model: "transformers cannot make config and tokenizer",
    no_json: "cannot be read",
    deep_json: "cannot be read",
    half_weights: "cannot be read",
    long_header: "cannot be read",
    no_weights: "cannot be read",
}


@pytest.mark.slow
@pytest.mark.timeout(30)
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_folder_that_contradicts_itself_is_refused(damage, tmp_path, byte_tokenizer):
    make(tmp_path / "model", "falcon-e", byte_tokenizer)
    damage(tmp_path / "model")
    with pytest.raises(FormatError, match=DAMAGE[damage]):
        load_pretrained(str(tmp_path / "model"))


def shard(folder, names=("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")):
    """Split the weights of a folder into two files under an index that names them so."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = (dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2]))
    weight_map = {}
    for number, (name, half) in enumerate(zip(names, halves, strict=True)):
        save_file(half, folder / f"model-0000{number + 1}-of-00002.safetensors", metadata={"format": "pt"})
        weight_map |= dict.fromkeys(half, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_weights_in_several_files_are_read(tmp_path, byte_tokenizer):
    for name in ("whole", "parts"):
        make(tmp_path / name, "2B-4T", byte_tokenizer)
    shard(tmp_path / "parts")
    whole, parts = (load_pretrained(str(tmp_path / name)) for name in ("whole", "parts"))
    assert torch.equal(logits(whole.model), logits(parts.model))


@pytest.mark.parametrize("name", ["../model-1.safetensors", "/etc/passwd", "a/b.safetensors", "weights.bin", "", ".."])
@pytest.mark.parametrize("one_bit", [True, False])
def test_an_index_that_leaves_its_folder_is_refused(name, one_bit, tmp_path, byte_tokenizer):
    make(tmp_path / "model", "2B-4T", byte_tokenizer)
    shard(tmp_path / "model", ("model-00001-of-00002.safetensors", name))
    if not one_bit:
        edit_config(tmp_path / "model", quantization_config=None)
    with pytest.raises(FormatError, match="only files beside it are read"):
        load_pretrained(str(tmp_path / "model"))


def test_a_missing_part_is_named(tmp_path, byte_tokenizer):
    make(tmp_path / "model", "2B-4T", byte_tokenizer)
    shard(tmp_path / "model")
    (tmp_path / "model" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FormatError, match=r"model-00002-of-00002\.safetensors cannot be read"):
        load_pretrained(str(tmp_path / "model"))


def test_a_tensor_in_two_files_is_refused(tmp_path, byte_tokenizer):
    make(tmp_path / "model", "2B-4T", byte_tokenizer)
    shard(tmp_path / "model")
    first, second = (tmp_path / "model" / f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    tensors = load_file(second)
    save_file({**tensors, next(iter(load_file(first))): torch.ones(2)}, second)
    with pytest.raises(FormatError, match=r"has model\.embed_tokens\.weight in model-00001"):
        load_pretrained(str(tmp_path / "model"))


def test_another_quantisation_is_not_read(tmp_path, byte_tokenizer):
    make(tmp_path / "model", "2B-4T", byte_tokenizer)
    edit_config(tmp_path / "model", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ConversionError, match=r"cannot be loaded|quantised in a way that is not read"):
        load_pretrained(str(tmp_path / "model"))
