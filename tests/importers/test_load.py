import json
import os
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.importers.load import load_mapped, load_pretrained
from bitnet_train.model.convert import convert
from tests.fixtures.families import logits, tiny_model
from tests.fixtures.gguf_files import gguf_bytes
from tests.fixtures.gguf_models import SMALL, make_float
from tests.fixtures.gguf_models import logits as gguf_logits

SMOLLM2 = os.environ.get("BITNET_TEST_SMOLLM2", "")


@pytest.fixture
def folder(tmp_path, byte_tokenizer):
    tiny_model().save_pretrained(tmp_path / "model")
    byte_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def attach_lora(model):
    """Wrap a model in an adapter of PEFT's that changes what it computes."""
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)).eval()


def test_a_directory_gives_the_model_and_tokenizer_it_holds(folder, byte_tokenizer):
    loaded = load_pretrained(str(folder))
    assert torch.equal(logits(loaded.model), logits(tiny_model()))
    assert not loaded.model.training
    assert loaded.tokenizer("abc").input_ids == byte_tokenizer("abc").input_ids
    assert loaded.source == str(folder)
    assert "LlamaForCausalLM" in loaded.description
    assert loaded.record is None


def test_the_dtype_is_the_one_asked_for(folder):
    assert {parameter.dtype for parameter in load_pretrained(str(folder)).model.parameters()} == {torch.float32}
    half = load_pretrained(str(folder), dtype=torch.bfloat16).model
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_the_bundled_model_speaks_and_converts():
    loaded = load_pretrained("tiny")
    ids = loaded.tokenizer("import os\n", return_tensors="pt").input_ids
    out = loaded.model.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert out.shape == (1, ids.shape[1] + 4)
    assert all(row.shape[1] % 256 == 0 for row in convert(loaded.model).rows)


@pytest.mark.parametrize("source", ["./no/such", "/no/such", "a/b/c", "~/no-such-model"])
def test_a_missing_directory_is_named_with_what_is_allowed(source):
    with pytest.raises(ConversionError, match=r"there is no such directory .*Allowed: `tiny`, a directory"):
        load_pretrained(source)


def test_a_missing_gguf_is_named():
    with pytest.raises(ConversionError, match=r"`model.source=no-such.gguf`: there is no such file"):
        load_pretrained("no-such.gguf")


def test_without_the_gguf_package_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "llama"}, {}))
    with pytest.raises(ConversionError, match=r"needs the package `gguf`.*pip install 'bitnet-train\[gguf\]'"):
        load_pretrained(str(path))


def test_a_damaged_gguf_is_found_before_it_is_read(tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 43)
    with pytest.raises(FormatError, match="truncated or damaged"):
        load_pretrained(str(path))


def test_a_float_gguf_is_checked_before_it_is_read(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "llama", "llama.block_count": 2**31}, {}))
    with pytest.raises(FormatError, match=r"`llama\.block_count` is 2147483648"):
        load_pretrained(str(path))


def test_what_is_no_hub_id_gives_one_clear_error():
    with pytest.raises(ConversionError, match=r"`model.source=no such id` cannot be loaded as a hub id"):
        load_pretrained("no such id")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConversionError, match=r"has no config\.json"):
        load_pretrained(str(tmp_path))


def test_a_folder_without_weights_gives_one_clear_error(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConversionError, match=r"cannot be loaded from .*Allowed: `tiny`"):
        load_pretrained(str(folder))


def test_pickled_weights_are_not_read(folder):
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ConversionError, match="cannot be loaded from"):
        load_pretrained(str(folder))


def test_somebody_elses_manifest_does_not_matter(folder):
    (folder / "manifest.json").write_text(json.dumps({"name": "web app"}))
    load_pretrained(str(folder))


@pytest.mark.parametrize("name", ["model.GGUF", "model.Gguf", "model", "blob-1234", "model.bin"])
def test_a_gguf_is_known_by_its_first_letters_whatever_it_is_called(name, tmp_path):
    made = make_float(LlamaConfig(**SMALL))
    loaded = load_pretrained(str(made.write(tmp_path, name)))
    assert torch.equal(gguf_logits(loaded.model), gguf_logits(made.model))
    with pytest.raises(ConversionError, match="weights of a GGUF cannot be mapped"):
        load_mapped(str(tmp_path / name))


def test_another_file_is_told_that_it_is_no_gguf(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConversionError, match=r"model\.safetensors` is a file, but no GGUF\. Allowed: `tiny`"):
        load_pretrained(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("read", [load_pretrained, load_mapped])
@pytest.mark.parametrize("with_model", [False, True], ids=["alone", "beside a model"])
def test_a_peft_adapter_is_told_to_be_merged_first_and_how(read, with_model, folder, tmp_path):
    adapter = attach_lora(tiny_model())
    adapter.peft_config["default"].base_model_name_or_path = "org/base"
    place = folder if with_model else tmp_path / "adapter"
    adapter.save_pretrained(place)
    with pytest.raises(ConversionError) as caught:
        read(str(place))
    assert f"`model.source={place}` is a PEFT adapter, made for org/base, not a model. Merge it first" in str(
        caught.value
    )
    assert f"AutoPeftModelForCausalLM.from_pretrained({str(place)!r}).merge_and_unload()" in str(caught.value)
    assert "AutoTokenizer.from_pretrained('org/base').save_pretrained('merged')" in str(caught.value)


def test_what_the_message_about_adapters_says_to_do_gives_a_model_that_loads(folder, tmp_path, monkeypatch):
    adapter = attach_lora(tiny_model())
    adapter.peft_config["default"].base_model_name_or_path = str(folder)
    adapter.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ConversionError) as caught:
        load_pretrained(str(tmp_path / "adapter"))
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(str(caught.value).partition("\n")[2]))
    assert torch.allclose(logits(load_pretrained("./merged").model), logits(adapter), atol=1e-5)


def test_an_adapter_in_a_gguf_is_told_to_be_merged_first(tmp_path):
    path = tmp_path / "lora.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "llama", "general.type": "adapter"}, {}))
    with pytest.raises(ConversionError, match=r"is a LoRA adapter, not a model\. Merge it .*llama-export-lora"):
        load_pretrained(str(path))


def test_the_vision_part_of_a_model_in_a_gguf_is_no_language_model(tmp_path):
    path = tmp_path / "mmproj.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "clip", "general.type": "mmproj"}, {}))
    with pytest.raises(FormatError, match=r"holds no language model: its `general\.type` is 'mmproj'"):
        load_pretrained(str(path))


@pytest.mark.slow
@pytest.mark.real_model
@pytest.mark.skipif(not SMOLLM2, reason="set BITNET_TEST_SMOLLM2 to a SmolLM2-135M .gguf file")
@pytest.mark.timeout(600)
def test_a_real_gguf_loads_dense_clean_and_in_bf16_values(tmp_path):
    loaded = load_pretrained(SMOLLM2)
    model = loaded.model
    assert Path(SMOLLM2).is_file()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(torch.equal(parameter, parameter.bfloat16().float()) for parameter in model.parameters())
    assert getattr(model.config, "quantization_config", None) is None
    model.float().save_pretrained(tmp_path / "dense")
    assert (tmp_path / "dense" / "model.safetensors").is_file()
    ids = loaded.tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert "Paris" in loaded.tokenizer.decode(model.generate(ids, max_new_tokens=4, do_sample=False)[0])
    assert len(convert(model).converted) == 210
