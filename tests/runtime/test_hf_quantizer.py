from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import bitnet_train
from bitnet_train.errors import ConfigError, ConversionError, FormatError
from bitnet_train.model.int8_table import Int8Linear
from bitnet_train.model.packed_linear import PackedLinear
from bitnet_train.packed import export_packed
from bitnet_train.packed.writer import QUANT_METHOD, WAY_OUT
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.runtime.hf_quantizer import METHOD

GUIDE = Path(__file__).parents[2] / "docs" / "python.md"
IDS = torch.arange(40).reshape(2, 20)
MODELS = {
    "row": {"weight": WeightScheme("binary", "row")},
    "group": {"weight": WeightScheme("ternary", "group", 32, learnable_scale=True)},
    "tensor": {"weight": WeightScheme("ternary", "tensor")},
    "embedding": {"roles": ("attention", "mlp", "embedding")},
    "head": {"roles": ("mlp", "head")},
    "none": {"activation": "none"},
    "gpt2": {"family": "gpt2"},
}
INT8 = {"embedding": "int8", "head": "int8"}
INT4 = {"embedding": "int4", "head": "int4"}


@pytest.fixture
def packed(make_trained, tmp_path):
    export_packed(make_trained(), None, tmp_path / "packed", {})
    return tmp_path / "packed"


@pytest.mark.slow
@pytest.mark.parametrize("tables", [{}, INT8, INT4], ids=["exact", "int8", "int4"])
@pytest.mark.parametrize("name", MODELS)
def test_from_pretrained_gives_the_model_of_load_bit_for_bit(make_trained, tmp_path, name, tables):
    if tables and name in ("embedding", "head"):
        tables = {key: value for key, value in tables.items() if key != name}  # the other one is 1-bit
    export_packed(make_trained(**MODELS[name]), None, tmp_path / "packed", {}, **tables)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "packed", output_loading_info=True)
    ours = bitnet_train.load(tmp_path / "packed")
    assert not any(info.values())
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, ours(IDS).logits)
    assert not model.training
    state, expected = model.state_dict(), ours.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)
    assert [type(module) for module in model.modules()] == [type(module) for module in ours.modules()]
    assert not [key for key, parameter in model.named_parameters() if parameter.requires_grad or parameter.is_meta]


def test_generation_and_its_settings_are_those_of_load(make_trained, tmp_path):
    model = make_trained()
    model.generation_config.max_new_tokens = 9
    export_packed(model, None, tmp_path / "packed", {})
    a, b = AutoModelForCausalLM.from_pretrained(tmp_path / "packed"), bitnet_train.load(tmp_path / "packed")
    assert a.generation_config.max_new_tokens == 9
    assert torch.equal(a.generate(IDS[:1], do_sample=False), b.generate(IDS[:1], do_sample=False))


def test_a_tied_int8_pair_is_held_once(make_trained, tmp_path):
    export_packed(make_trained(), None, tmp_path / "packed", {}, **INT8)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "packed")
    assert isinstance(model.lm_head, Int8Linear)
    assert model.lm_head.stream is model.model.embed_tokens.stream


def test_a_tied_float_pair_is_held_once(packed):
    model = AutoModelForCausalLM.from_pretrained(packed)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_of_training_is_taken_unless_another_is_asked_for(make_trained, tmp_path, attention):
    model = make_trained()
    model.set_attn_implementation(attention)
    export_packed(model, None, tmp_path / "packed", {})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "packed")
    assert loaded.config._attn_implementation == attention
    other = "sdpa" if attention == "eager" else "eager"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "packed", attn_implementation=other)
    assert loaded.config._attn_implementation == other


def test_the_model_is_float32_and_says_so_where_another_type_is_asked_for(packed, caplog):
    model = AutoModelForCausalLM.from_pretrained(packed, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert "`dtype=torch.bfloat16` is left out of account" in caplog.text
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, bitnet_train.load(packed)(IDS).logits)


def test_no_float_weight_of_a_packed_layer_is_ever_allocated(packed, monkeypatch):
    """The layers have stepped aside before transformers asks which tensors to load."""
    expected = []
    original = AutoModelForCausalLM.from_pretrained(packed).__class__._load_pretrained_model

    def spy(model, *arguments, **options):
        expected.extend(model.state_dict())
        return original(model, *arguments, **options)

    monkeypatch.setattr("transformers.PreTrainedModel._load_pretrained_model", staticmethod(spy))
    model = AutoModelForCausalLM.from_pretrained(packed)
    layers = {name for name, module in model.named_modules() if isinstance(module, PackedLinear)}
    assert layers
    assert "model.norm.weight" in expected
    assert not [key for key in expected if key.rpartition(".")[0] in layers]


def test_training_is_refused(packed, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(packed)
    assert model.hf_quantizer.is_trainable is False
    with pytest.raises(ValueError, match="quantized"):
        Trainer(model, TrainingArguments(str(tmp_path / "run"), report_to=[], use_cpu=True))


def test_saving_is_refused_with_the_way_out(packed, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(packed)
    assert model.hf_quantizer.is_serializable() is False
    with pytest.raises(ConversionError, match=r"Copy the folder.*`bitnet-train export FOLDER export=plain`"):
        model.save_pretrained(tmp_path / "saved")
    with pytest.raises(ConversionError, match=r"export=plain"):
        model.dequantize()
    assert not (tmp_path / "saved").exists()


def test_another_device_is_refused(packed):
    with pytest.raises(ConfigError, match=r"`device_map` asks for cuda:0.*on the CPU"):
        AutoModelForCausalLM.from_pretrained(packed, device_map={"": "cuda:0"})
    model = AutoModelForCausalLM.from_pretrained(packed, device_map="cpu")
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, bitnet_train.load(packed)(IDS).logits)


def test_a_damaged_folder_is_refused_as_by_load(packed):
    tensors = load_file(packed / "weights.safetensors")
    tensors["model.norm.weight"][3] += 1
    save_file(tensors, packed / "weights.safetensors", metadata={"format": "pt"})
    with pytest.raises(FormatError, match=r"changed or damaged.*model\.norm\.weight"):
        AutoModelForCausalLM.from_pretrained(packed)
    (packed / "manifest.json").unlink()
    with pytest.raises(FormatError, match=r"no manifest\.json"):
        AutoModelForCausalLM.from_pretrained(packed)


def test_a_newer_layout_is_refused(packed):
    config = json.loads((packed / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": METHOD, "format": "planes_v1", "attention": "sdpa"}
    assert METHOD == QUANT_METHOD
    config["quantization_config"]["format"] = "planes_v9"
    (packed / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match=r"'planes_v9'; this version reads 'planes_v1'"):
        AutoModelForCausalLM.from_pretrained(packed)


def test_a_folder_from_before_the_key_is_loaded_by_load_alone(packed):
    """Its manifest states the old config's hash, as the manifest of an old folder does."""
    config = json.loads((packed / "config.json").read_text())
    del config["quantization_config"], config["transformers_weights"]
    (packed / "config.json").write_text(json.dumps(config))
    with torch.no_grad():
        logits = bitnet_train.load(packed, verify=False)(IDS).logits
    assert logits.isfinite().all()
    with pytest.raises(OSError, match="no file named model"):
        AutoModelForCausalLM.from_pretrained(packed)


def test_load_returns_a_plain_model_without_the_key(packed):
    model = bitnet_train.load(packed)
    assert not hasattr(model.config, "quantization_config")
    assert not hasattr(model.config, "transformers_weights")
    assert not getattr(model, "is_quantized", False)


def in_a_process(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_a_process_that_lacks_this_package_refuses_instead_of_inventing_weights(packed):
    code = """
    import sys
    sys.modules["bitnet_train"] = None
    from transformers import AutoModelForCausalLM
    AutoModelForCausalLM.from_pretrained(sys.argv[1])
    """
    done = in_a_process(code, packed)
    assert done.returncode == 1
    said, guide = " ".join(done.stderr.split()), GUIDE.read_text(encoding="utf-8")
    section = guide.partition("Without the import it warns")[2].partition("or, for folders of before")[0]
    quoted = [" ".join(block.split()) for block in re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)]
    assert len(quoted) == 2
    assert [quote for quote in quoted if quote not in said] == [], "the guide quotes what comes"
    assert said.endswith(f"{WAY_OUT}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import bitnet_train\nfrom transformers import AutoModelForCausalLM",
        "from transformers import AutoModelForCausalLM\nimport bitnet_train",
    ],
)
def test_an_import_of_this_package_is_all_it_takes(packed, tmp_path, imports):
    code = """
    import sys, torch
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
    from safetensors.torch import save_file
    with torch.no_grad():
        save_file({"logits": model(torch.arange(40).reshape(2, 20)).logits}, sys.argv[2])
    """
    done = in_a_process(imports + "\n" + textwrap.dedent(code), packed, tmp_path / "logits")
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        assert torch.equal(load_file(tmp_path / "logits")["logits"], bitnet_train.load(packed)(IDS).logits)


@pytest.mark.slow
def test_a_model_in_the_hubs_cache_is_loaded_by_its_id(packed, tmp_path):
    snapshot = tmp_path / "hub" / "models--me--mine" / "snapshots" / ("0" * 40)
    shutil.copytree(packed, snapshot)
    (tmp_path / "hub" / "models--me--mine" / "refs").mkdir()
    (tmp_path / "hub" / "models--me--mine" / "refs" / "main").write_text("0" * 40)
    code = """
    import bitnet_train, torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained("me/mine")
    print(type(model.model.layers[0].mlp.up_proj).__name__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")},
    )
    assert done.stdout == "PackedLinear\n", done.stderr[-2000:]
