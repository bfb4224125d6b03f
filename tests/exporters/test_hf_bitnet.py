from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.bitnet import BitLinear

from bitnet_train.errors import FormatError
from bitnet_train.exporters import hf_folder
from bitnet_train.exporters.hf_bitnet import read_back
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import export_as
from bitnet_train.packed import export_packed
from bitnet_train.packed.source import open_packed
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.runtime.load import load

pytestmark = pytest.mark.usefixtures("uncompiled")

CLASSES = ("autobitlinear", "bitlinear")
ROUNDING = 2.0**-24  # half a unit in the last place of a float32, relative

TOKEN_IDS = torch.randint(0, 256, (2, 16), generator=torch.Generator().manual_seed(1))
CASES = {"binary": ("binary", ("attention", "mlp")), "ternary": ("ternary", ("attention", "mlp"))}
CASES["mlp only"] = ("ternary", ("mlp",))

ALONE = """
    import sys
    sys.modules["bitnet_train"] = None  # as where it is not installed
    import torch
    from pathlib import Path
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM
    ids = load_file(sys.argv[1])["ids"]
    for folder in map(Path, sys.argv[2:]):
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(info.values()), info
        seen = {}
        def keep(name):
            def hook(module, inputs, output):
                seen[f"{name}/in"], seen[f"{name}/out"] = inputs[0].contiguous(), output.contiguous()
            return hook
        for name, module in model.named_modules():
            if type(module).__name__ in ("BitLinear", "AutoBitLinear"):
                module.register_forward_hook(keep(name))
        with torch.no_grad():
            seen["logits"] = model(ids).logits
        save_file({key: value.clone() for key, value in seen.items()}, folder.parent / "seen")
"""


@pytest.fixture(scope="module")
def cases(make_trained, tmp_path_factory):
    """Return folders by case and class: `packed`, `out`, and `seen`, what a process without this package computed.

    `seen` holds the logits, and the inputs and outputs of every 1-bit layer.
    """
    folders = {}
    for case, (name, roles) in CASES.items():
        model = make_trained(weight=WeightScheme(name, "tensor"), roles=roles)
        for linear_class in CLASSES:
            folder = folders[case, linear_class] = tmp_path_factory.mktemp("case")
            export_packed(model, None, folder / "packed", {})
            export_as("hf_bitnet", folder / "packed", folder / "out", ExportOptions(linear_class=linear_class))
    ids = tmp_path_factory.mktemp("ids") / "ids"
    save_file({"ids": TOKEN_IDS}, ids)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ALONE), ids, *(folder / "out" for folder in folders.values())],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "TORCHDYNAMO_DISABLE": "1"},  # transformers compiles its unpacking, for half a minute
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folders


def near_a_half(x: torch.Tensor) -> torch.Tensor:
    """Return how many codes of each token may differ by one, as x * s is within two roundings of a half, [T, 1]."""
    scaled = x * (127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5))
    from_half = (scaled - scaled.floor() - 0.5).abs()
    return (from_half <= 4 * ROUNDING * scaled.abs()).sum(dim=-1, keepdim=True)


@pytest.mark.slow
@pytest.mark.parametrize("linear_class", CLASSES)
@pytest.mark.parametrize("case", CASES)
def test_transformers_alone_computes_what_was_trained(cases, case, linear_class):
    folder = cases[case, linear_class]
    theirs, ours = load_file(folder / "seen"), load(folder / "packed")
    same_codes = True
    with open_packed(folder / "packed") as source, torch.no_grad():
        assert {key.removesuffix("/in") for key in theirs if key.endswith("/in")} == set(source.layers)
        for layer in source.layers:
            x, y = (theirs[f"{layer}/{side}"].flatten(0, 1) for side in ("in", "out"))
            one_bit = source.layer(layer)
            bias = torch.zeros(y.shape[1]) if one_bit.bias is None else one_bit.bias
            codes, x_scale = quantize_activation(x, ActivationScheme("int8"))
            output = ours.get_submodule(layer)(x)
            # bitlinear rounds weight_scale, s, their product, the quotient and the sum, and we as often; autobitlinear
            # rounds each of K inputs, products and partial sums
            if linear_class == "bitlinear":
                mass, roundings = (output - bias).abs(), 12
            else:
                mass = one_bit.scale * x_scale * codes.float().abs().sum(dim=-1, keepdim=True)
                roundings = 12 + 3 * x.shape[1]
            bound = roundings * ROUNDING * (mass + bias.abs())
            flipped = near_a_half(x)
            same_codes &= not flipped.any()
            assert ((output - y).abs() <= bound + flipped * one_bit.scale * x_scale).all(), layer
        logits = ours(TOKEN_IDS).logits
    # at most 14 layers of 12 + 3 * 128 roundings; one code that differs moves an output by a hundredth of the largest
    relative = 14 * (12 + 3 * 128) * ROUNDING if same_codes else 0.05
    assert (theirs["logits"] - logits).abs().max() <= relative * logits.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("linear_class", CLASSES)
def test_layers_that_stay_float_are_named_in_the_config(cases, linear_class):
    config = json.loads((cases["mlp only", linear_class] / "out" / "config.json").read_text())
    quantization = config["quantization_config"]
    attention = [f"model.layers.{i}.self_attn.{part}_proj" for i in range(2) for part in "qkvo"]
    assert sorted(quantization["modules_to_not_convert"]) == sorted(["lm_head", *attention])
    assert quantization["quant_method"] == "bitnet"
    assert (quantization["linear_class"], quantization["quantization_mode"]) == (linear_class, "offline")
    assert (config["model_type"], config["architectures"]) == ("llama", ["LlamaForCausalLM"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"weight": WeightScheme("binary", "row")},
            r"model\.layers\.0\.\S+ has binary per row.*`weight=binary_tensor`",
        ),
        ({"weight": WeightScheme("ternary", "group", 32)}, r"ternary per group 32.*`weight=ternary_tensor`"),
        ({"weight": WeightScheme("binary", "tensor", planes=2)}, r"binary of 2 planes per tensor.*`weight\.planes=1`"),
        ({"roles": ("mlp", "embedding")}, r"model\.embed_tokens is a 1-bit token embedding.*`model\.roles`"),
        ({"roles": ("mlp", "head")}, r"lm_head has 258 rows.*multiple of 4.*`model\.exclude`"),
        ({"activation": "sign"}, r"`activation=sign`.*`activation=int8`"),
        ({"activation": "none"}, r"`activation=none`.*`activation=int8`"),
        ({"family": "gpt2"}, r"transformer\.h\.0\.\S+ is a Conv1D in GPT2LMHeadModel"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_with_the_setting_that_would(make_trained, tmp_path, settings, message):
    settings = {"weight": WeightScheme("binary", "tensor"), **settings}
    export_packed(make_trained(**settings), None, tmp_path / "packed", {})
    with pytest.raises(FormatError, match=message):
        export_as("hf_bitnet", tmp_path / "packed", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_float_layer_whose_name_covers_a_packed_one_is_refused(make_trained, tmp_path, monkeypatch):
    export_packed(make_trained(weight=WeightScheme("binary", "tensor")), None, tmp_path / "packed", {})
    monkeypatch.setattr(
        "transformers.models.llama.modeling_llama.LlamaForCausalLM._keep_in_fp32_modules", ["q_proj"], raising=False
    )
    with pytest.raises(FormatError, match=r"q_proj is 1-bit, but by its name transformers takes it for"):
        export_as("hf_bitnet", tmp_path / "packed", tmp_path / "out")


def test_a_float32_scale_that_is_no_reciprocal_is_refused_for_bitlinear_only(make_trained, tmp_path):
    scheme = WeightScheme("binary", "tensor", scale_dtype="float32", learnable_scale=True)
    model = make_trained(weight=scheme, family="odd")
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "scale", None) is not None:
                module.scale.fill_(torch.nextafter(torch.tensor(1.75), torch.tensor(2.0)).item())
    export_packed(model, None, tmp_path / "packed", {})
    with pytest.raises(FormatError, match=r"`export\.linear_class=autobitlinear`.*`weight\.scale_dtype=float16`"):
        export_as("hf_bitnet", tmp_path / "packed", tmp_path / "out", ExportOptions(linear_class="bitlinear"))
    export_as("hf_bitnet", tmp_path / "packed", tmp_path / "out", ExportOptions(linear_class="autobitlinear"))


@pytest.mark.parametrize("linear_class", CLASSES)
def test_a_scale_of_0_is_refused_by_the_name_of_its_layer(make_trained, tmp_path, linear_class):
    model = make_trained(weight=WeightScheme("ternary", "tensor", learnable_scale=True))
    with torch.no_grad():
        model.get_submodule("model.layers.1.mlp.up_proj").scale.zero_()
    export_packed(model, None, tmp_path / "packed", {})
    with pytest.raises(FormatError, match=r"layers\.1\.mlp\.up_proj has the scale 0.*`export=plain`"):
        export_as("hf_bitnet", tmp_path / "packed", tmp_path / "out", ExportOptions(linear_class=linear_class))


@pytest.mark.parametrize("linear_class", CLASSES)
def test_int8_tables_go_out_exactly_and_a_tied_pair_once(make_trained, tmp_path, linear_class):
    model = make_trained(weight=WeightScheme("ternary", "tensor"))
    export_packed(model, None, tmp_path / "packed", {}, embedding="int8", head="int8")
    options = ExportOptions(linear_class=linear_class)
    record = export_as("hf_bitnet", tmp_path / "packed", tmp_path / "out", options)
    assert record.facts["tables_in_float32"] == ["model.embed_tokens", "lm_head"]
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert "lm_head.weight" not in stored
    with open_packed(tmp_path / "packed") as source:
        assert torch.equal(stored["model.embed_tokens.weight"], source.dense("model.embed_tokens"))
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_a_model_above_a_shard_is_split_and_indexed(make_trained, tmp_path, monkeypatch):
    export_packed(make_trained(weight=WeightScheme("binary", "tensor")), None, tmp_path / "packed", {})
    whole, split = tmp_path / "whole", tmp_path / "split"
    export_as("hf_bitnet", tmp_path / "packed", whole)
    monkeypatch.setattr(hf_folder, "SHARD_BYTES", 40_000)
    export_as("hf_bitnet", tmp_path / "packed", split)
    shards = sorted(path.name for path in split.glob("*.safetensors"))
    assert len(shards) >= 2
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    index = json.loads((split / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(load_file(whole / "model.safetensors"))
    with torch.no_grad():
        a, b = (AutoModelForCausalLM.from_pretrained(folder)(TOKEN_IDS).logits for folder in (whole, split))
    assert torch.equal(a, b)
    assert dict(read_back(split)).keys() == dict(read_back(whole)).keys()


def test_the_folder_has_tokenizer_settings_and_a_card(make_trained, byte_tokenizer, tmp_path):
    model = make_trained(weight=WeightScheme("binary", "tensor"))
    model.generation_config.max_new_tokens = 17
    facts = {"base_model": "tiny-llama", "recipe": "mine", "perplexity": 7.5}
    export_packed(model, byte_tokenizer, tmp_path / "packed", facts)
    record = export_as("hf_bitnet", tmp_path / "packed", tmp_path / "out")
    packed, out = ({path.name for path in (tmp_path / name).iterdir()} for name in ("packed", "out"))
    assert out == packed - {"manifest.json", "weights.safetensors"} | {"model.safetensors", "export.json"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# tiny-llama, binary" in card
    assert "`linear_class: autobitlinear`" in card
    assert "| perplexity | 7.5 |" in card
    assert record.facts["biases_divided_by_the_scale"] == 8


def test_another_tools_folder_is_read_back_and_a_damaged_one_refused(make_trained, tmp_path):
    export_packed(make_trained(weight=WeightScheme("ternary", "tensor")), None, tmp_path / "packed", {})
    out = tmp_path / "out"
    export_as("hf_bitnet", tmp_path / "packed", out, ExportOptions(linear_class="bitlinear"))
    config = json.loads((out / "config.json").read_text())
    del config["quantization_config"]["linear_class"]  # transformers then means bitlinear
    (out / "config.json").write_text(json.dumps(config))
    assert len(dict(read_back(out))) == 14 + 8 + 6
    config["quantization_config"]["linear_class"] = "other"
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match=r"'other'\. Allowed: autobitlinear, bitlinear"):
        dict(read_back(out))
    config["quantization_config"]["linear_class"] = "bitlinear"
    (out / "config.json").write_text(json.dumps(config))
    tensors = load_file(out / "model.safetensors")
    scale = tensors.pop("model.layers.1.mlp.up_proj.weight_scale")
    save_file(tensors, out / "model.safetensors")
    with pytest.raises(FormatError, match=r"layers\.1\.mlp\.up_proj\.weight has packed codes and no `weight_scale`"):
        dict(read_back(out))
    save_file({**tensors, "model.layers.1.mlp.up_proj.weight_scale": 0 * scale}, out / "model.safetensors")
    with pytest.raises(FormatError, match="`weight_scale` must be a finite number above 0"):
        dict(read_back(out))
    (out / "config.json").write_text("{")
    with pytest.raises(FormatError, match="no readable `quantization_config`"):
        dict(read_back(out))


def test_the_codes_of_transformers_inputs_are_ours_but_next_to_a_half():
    x = torch.randn(200, 512, generator=torch.Generator().manual_seed(0))
    x[0] = 0  # the smallest maximum, 1e-5
    x[1, :3] = torch.tensor([127.0, 0.5, 1.5])
    x[1, 3:] = 2.5
    layer = BitLinear(512, 4, bias=False, dtype=torch.float32)
    theirs, _ = layer.activation_quant(x)
    ours, _ = quantize_activation(x, ActivationScheme("int8"))
    assert ours[1, :4].tolist() == [127, 0, 2, 2]  # half to even
    assert torch.equal(ours[1], theirs[1])
    assert (theirs.int() - ours.int()).abs().max() <= 1
    assert ((theirs != ours).sum(dim=-1, keepdim=True) <= near_a_half(x)).all()
