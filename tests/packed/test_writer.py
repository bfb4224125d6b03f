from __future__ import annotations

import io
import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from bitnet_train.errors import DiskError, FormatError
from bitnet_train.formats.planes import unpack_planes
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.bit_lora import attach
from bitnet_train.model.settings import AdapterConfig
from bitnet_train.packed import contents, export_packed, read_manifest, size_report, verify_files
from bitnet_train.packed.contents import describe_tensor
from bitnet_train.packed.sizes import render_sizes
from bitnet_train.packed.writer import plain_facts
from bitnet_train.quant.scheme import GRANULARITIES, WeightScheme
from tests.fixtures.schemes import CODE_SETS, weight_scheme


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", CODE_SETS)
def test_the_stored_codes_and_scales_are_those_of_the_trained_forward(make_trained, tmp_path, name, granularity):
    scheme = weight_scheme(name, granularity=granularity, group_size=32, learnable_scale=True)
    model = make_trained(weight=scheme)
    manifest = export_packed(model, None, tmp_path / "out", {})
    stored = load_file(tmp_path / "out" / "weights.safetensors")
    for entry in manifest.layers:
        codes, scale = bit_layers(model)[entry.name].quantized()
        assert torch.equal(unpack_planes(stored[f"{entry.name}.planes"], entry.num_inputs, name), codes)
        assert torch.equal(stored[f"{entry.name}.scale"].float(), scale)
        assert stored[f"{entry.name}.scale"].dtype == torch.float16
        assert stored[f"{entry.name}.scale"].shape == scheme.scale_shape(*codes.shape)
    assert [entry.name for entry in manifest.layers] == list(bit_layers(model))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("name", CODE_SETS)
def test_an_embedding_is_packed_like_a_linear_and_named_as_what_it_is(make_trained, tmp_path, name, family):
    model = make_trained(family, weight_scheme(name), roles=("mlp", "embedding"))
    manifest = export_packed(model, None, tmp_path / "out", {})
    stored = load_file(tmp_path / "out" / "weights.safetensors")
    (entry,) = [layer for layer in manifest.layers if layer.kind == "embedding"]
    assert (entry.num_outputs, entry.num_inputs, entry.activation.name, entry.has_bias) == (258, 64, "none", False)
    codes, _ = bit_layers(model)[entry.name].quantized()
    assert torch.equal(unpack_planes(stored[f"{entry.name}.planes"], 64, name), codes)
    assert f"{entry.name}.weight" not in stored
    assert "lm_head.weight" in stored  # the head was tied to it and keeps a float copy
    (size,) = [size for size in size_report(manifest) if size.name == entry.name]
    assert size.fp16_bytes == 2 * 258 * 64
    assert size.packed_bytes * 16 == size.fp16_bytes * entry.scheme.num_planes
    assert "linear layers and the token embedding of this model" in (tmp_path / "out" / "README.md").read_text()


def test_what_is_not_packed_is_stored_once_and_exactly(make_trained, tmp_path):
    model = make_trained()
    manifest = export_packed(model, None, tmp_path / "out", {})
    stored = load_file(tmp_path / "out" / "weights.safetensors")
    assert manifest.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    assert "lm_head.weight" not in stored
    assert stored["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert stored["model.norm.weight"].dtype == torch.float32
    for name, tensor in stored.items():
        if not name.endswith((".planes", ".scale")):
            assert torch.equal(tensor.float(), model.get_parameter(name) if "inv_freq" not in name else tensor.float())
    assert torch.equal(stored["model.rotary_emb.inv_freq"].float(), model.model.rotary_emb.inv_freq)


def test_a_binary_layer_with_row_scales_is_a_sixteenth_of_fp16_plus_its_scales(make_trained, tmp_path):
    manifest = export_packed(make_trained(), None, tmp_path / "out", {})
    for size in size_report(manifest):
        assert size.packed_bytes * 16 == size.fp16_bytes == 2 * math.prod(size.shape)
        assert size.scale_bytes == 2 * size.shape[0]
    assert manifest.sizes.packed_bytes == sum(size.packed_bytes for size in size_report(manifest))
    assert manifest.sizes.fp16_bytes == 16 * manifest.sizes.packed_bytes
    on_disk = sum(path.stat().st_size for path in (tmp_path / "out").iterdir() if path.name != "manifest.json")
    assert manifest.sizes.total_bytes == on_disk


def test_the_table_of_sizes_has_a_row_a_family_and_fits_eighty_columns(make_trained, tmp_path):
    manifest = export_packed(make_trained(), None, tmp_path / "out", {})
    families = {re.sub(r"\d+", "*", layer.name) for layer in manifest.layers}
    assert len(families) * 2 == len(manifest.layers), "two blocks of equal layers"
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(render_sizes(manifest))
    text = console.export_text()
    assert render_sizes(manifest).row_count == len(families) + 1
    assert all(name in text for name in families), "no name is cut"
    total = manifest.sizes
    assert f"{total.fp16_bytes:,}" in text
    assert f"{total.packed_bytes + total.scale_bytes:,}" in text


def test_a_scale_that_the_last_plane_cannot_double_is_refused(make_trained, tmp_path):
    model = make_trained(weight=WeightScheme(planes=2, learnable_scale=True))
    layer = model.get_submodule("model.layers.1.mlp.up_proj")
    with torch.no_grad():
        layer.scale[3] = 40000.0
    with pytest.raises(FormatError, match=r"layers\.1\.mlp\.up_proj: a scale of 40000 is above 32752.*float32"):
        export_packed(model, None, tmp_path / "out", {})


@pytest.mark.parametrize("planes", [2, 4])
def test_every_plane_is_a_sixteenth_of_fp16_and_the_card_names_the_codes(planes, make_trained, tmp_path):
    manifest = export_packed(make_trained(weight=WeightScheme(planes=planes)), None, tmp_path / "out", {})
    assert manifest.sizes.fp16_bytes * planes == 16 * manifest.sizes.packed_bytes
    card = (tmp_path / "out" / "README.md").read_text()
    assert {2: "-3, -1, +1 or +3", 4: "-15, -13, -11, -9, -7, -5, -3, -1, +1,"}[planes] in card
    assert f"binary weights of {planes} planes, one float16 scale per row" in card


def test_a_ternary_layer_is_an_eighth_of_fp16(make_trained, tmp_path):
    manifest = export_packed(make_trained(weight=WeightScheme(name="ternary")), None, tmp_path / "out", {})
    assert manifest.sizes.fp16_bytes == 8 * manifest.sizes.packed_bytes


def test_a_folder_has_everything_a_user_needs(make_trained, byte_tokenizer, tmp_path):
    model = make_trained()
    model.generation_config.max_new_tokens = 17
    facts = {"base_model": "tiny-llama", "recipe": "quickstart", "perplexity": 7.5}
    manifest = export_packed(model, byte_tokenizer, tmp_path / "out", facts)
    assert verify_files(tmp_path / "out") == manifest
    assert set(manifest.files) == {path.name for path in (tmp_path / "out").iterdir()} - {"manifest.json"}
    assert GenerationConfig.from_pretrained(tmp_path / "out").max_new_tokens == 17
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == byte_tokenizer.chat_template
    assert tokenizer("hé").input_ids == byte_tokenizer("hé").input_ids
    card = (tmp_path / "out" / "README.md").read_text()
    assert "14 linear layers of this model have weights of -1 or +1" in card
    assert "| perplexity | 7.5 |" in card
    assert (manifest.base_model, manifest.recipe, manifest.facts) == ("tiny-llama", "quickstart", facts)
    assert set(manifest.created_by) == {"bitnet_train", "torch", "transformers", "safetensors", "python"}


def test_nothing_in_the_folder_is_what_transformers_loads_by_itself(make_trained, tmp_path):
    """With the name of its method unknown, as without this package; `test_hf_quantizer.py` has the real process."""
    export_packed(make_trained(), None, tmp_path / "out", {})
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.quantization_config["quant_method"] == "bitnet_train"
    config.quantization_config["quant_method"] = "unheard_of"
    with pytest.raises(ValueError, match=r"seems to be incorrect.*`import bitnet_train` before `from_pretrained`"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "out", config=config)
    del config.transformers_weights  # as in a folder of before
    with pytest.raises(OSError, match="no file named model"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "out", config=config)


def test_two_exports_of_one_model_have_equal_bytes(make_trained, tmp_path):
    export_packed(make_trained(), None, tmp_path / "a", {})
    export_packed(make_trained(), None, tmp_path / "b", {})
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_an_export_hashes_every_stored_tensor_once(make_trained, tmp_path, monkeypatch):
    described = []

    def seen(tensor):
        described.append(tensor)
        return describe_tensor(tensor)

    monkeypatch.setattr(contents, "describe_tensor", seen)
    manifest = export_packed(make_trained(), None, tmp_path / "out", {})
    assert len(described) == len(manifest.tensors)


def test_an_export_leaves_the_model_as_it_was(make_trained, tmp_path):
    model = make_trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_packed(model, None, tmp_path / "out", {})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_facts_become_json_whatever_they_hold():
    facts = {"path": Path("a/b"), "loss": float("inf"), "nan": float("nan"), 3: (1, None, True), "deep": [{"x": 2.5}]}
    plain = plain_facts(facts)
    assert plain == {"path": "a/b", "loss": "inf", "nan": "nan", "3": [1, None, True], "deep": [{"x": 2.5}]}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_a_model_without_one_bit_layers_is_refused(tmp_path):
    from transformers import GPT2Config

    model = AutoModelForCausalLM.from_config(GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=32))
    with pytest.raises(FormatError, match="the model has no 1-bit layer"):
        export_packed(model, None, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


def test_a_model_with_adapters_is_refused(make_trained, tmp_path):
    model = attach(make_trained(), AdapterConfig(kind="lora_inside", rank=2))
    with pytest.raises(FormatError, match="still has adapters"):
        export_packed(model, None, tmp_path / "out", {})


def test_a_bfloat16_model_is_refused_because_its_logits_would_change(make_trained, tmp_path):
    model = make_trained()
    model.model.norm.bfloat16()
    with pytest.raises(FormatError, match=r"model\.norm\.weight is bfloat16.*model\.float\(\)"):
        export_packed(model, None, tmp_path / "out", {})


def test_a_folder_that_is_not_empty_is_left_alone(make_trained, tmp_path):
    (tmp_path / "precious.txt").write_text("keep me")
    for force in (False, True):
        with pytest.raises(FormatError, match="not empty" if not force else r"also holds precious\.txt"):
            export_packed(make_trained(), None, tmp_path, {}, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_force_replaces_an_earlier_export_and_only_with_force(make_trained, tmp_path):
    export_packed(make_trained(seed=1), None, tmp_path / "out", {"run": 1})
    with pytest.raises(FormatError, match="`force=True`"):
        export_packed(make_trained(seed=2), None, tmp_path / "out", {"run": 2})
    assert verify_files(tmp_path / "out").facts == {"run": 1}
    export_packed(make_trained(seed=2), None, tmp_path / "out", {"run": 2}, force=True)
    assert verify_files(tmp_path / "out").facts == {"run": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_also_replaces_a_damaged_export(make_trained, tmp_path):
    export_packed(make_trained(), None, tmp_path / "out", {})
    text = (tmp_path / "out" / "manifest.json").read_text()
    (tmp_path / "out" / "manifest.json").write_text(text.replace("planes_v1", "planes_v0"))
    export_packed(make_trained(), None, tmp_path / "out", {}, force=True)
    verify_files(tmp_path / "out")


def test_an_empty_folder_and_missing_parents_are_fine(make_trained, tmp_path):
    (tmp_path / "empty").mkdir()
    export_packed(make_trained(), None, tmp_path / "empty", {})
    export_packed(make_trained(), None, tmp_path / "a" / "b" / "c", {})
    assert verify_files(tmp_path / "empty") == verify_files(tmp_path / "a" / "b" / "c")


def test_a_place_that_cannot_be_written_is_reported_with_the_way_out(make_trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"out cannot be written: (File exists|Not a directory).*choose another folder"):
        export_packed(make_trained(), None, tmp_path / "file" / "out", {})


def test_a_full_disk_leaves_the_earlier_export_whole(make_trained, tmp_path):
    before = export_packed(make_trained(seed=1), None, tmp_path / "out", {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(DiskError, match=r"out cannot be written: .* [\d,]+ bytes are needed, .* Make room"):
            export_packed(make_trained(seed=2), None, tmp_path / "out", {}, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert verify_files(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


KILLED = """
    import sys, time, torch
    from pathlib import Path
    from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig
    from bitnet_train.packed import export_packed
    from bitnet_train.model.convert import convert
    model = AutoModelForCausalLM.from_config(LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, vocab_size=64), dtype=torch.float32)
    convert(model)
    class SlowTokenizer:
        chat_template = None
        def save_pretrained(self, folder, **options):
            Path(folder, "tokenizer.json").write_text("{}")
            Path(sys.argv[2]).write_text("in the middle")
            time.sleep(3600)
    export_packed(model.eval(), SlowTokenizer(), sys.argv[1], {})
"""


@pytest.mark.slow
def test_an_export_killed_in_the_middle_leaves_nothing_that_loads(tmp_path):
    out, reached = tmp_path / "exports" / "out", tmp_path / "reached"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(out), str(reached)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not reached.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    remains = list(out.parent.iterdir())
    assert [path.name.startswith(".out.partial-") for path in remains] == [True]
    assert (remains[0] / "weights.safetensors").exists()
    with pytest.raises(FormatError, match=r"not a packed model: it has no manifest\.json"):
        read_manifest(remains[0])


def test_the_tokenizer_is_written_without_blanks_and_gives_the_same_ids(make_trained, byte_tokenizer, tmp_path):
    export_packed(make_trained(), byte_tokenizer, tmp_path / "out", {})
    byte_tokenizer.save_pretrained(tmp_path / "own")
    own, written = (tmp_path / name / "tokenizer.json" for name in ("own", "out"))
    assert json.loads(written.read_text()) == json.loads(own.read_text())
    assert b"\n" not in written.read_bytes()
    assert written.stat().st_size < own.stat().st_size
    text = "def f(x):\n\treturn 'ä 漢'"
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(text).input_ids == byte_tokenizer(text).input_ids
