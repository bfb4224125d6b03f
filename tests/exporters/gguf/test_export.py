"""`model.gguf`: every weight comes back, every family has a file, and what llama.cpp cannot hold is refused first."""

from __future__ import annotations

import sys

import gguf
import pytest
import torch
from transformers import LlamaConfig

from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.exporters.gguf import MODEL_NAME, check, expected, read_back, write
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.formats.ggml import GGML_TYPES
from bitnet_train.gguf.file import open_gguf
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.settings import Selection
from bitnet_train.packed.source import open_packed
from bitnet_train.quant.scheme import TABLE_BITS, WeightScheme
from tests.fixtures.family_folders import FAMILIES, ONE_BIT_TABLES, SIZES, pack
from tests.fixtures.schemes import weight_scheme

BUFFERS = ("inv_freq", "embed_scale")


def export(packed, out, **options):
    out.mkdir()
    chosen = ExportOptions(**options)
    with open_packed(packed) as source:
        check(source, chosen)
        return write(source, out, chosen)


def assert_whole(packed, out, **options):
    """Every weight of the packed folder is in the file, bit for bit, and nothing else."""
    with open_packed(packed) as source:
        tied = [name for name in source.tied if name.endswith(".weight")]
        left = {name.removesuffix(".weight"): name for name in source.weight_names() if not name.endswith(BUFFERS)}
        names = {**left, **{name.removesuffix(".weight"): name for name in (*source.tables, *tied)}}
        for name, values in read_back(out):
            module = name.removesuffix(".weight")
            wanted = expected(source, names[module], ExportOptions(**options)).float()
            assert values.dtype == torch.float32
            assert values.shape == wanted.shape, name
            assert torch.equal(values, wanted), name
            left.pop(module, None)
        assert not left


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_every_family_comes_back(tmp_path, family):
    packed = pack(tmp_path / "packed", FAMILIES[family])
    facts = export(packed, tmp_path / "out")
    assert facts["type"] == "q1_0"
    assert_whole(packed, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("type_name", GGML_TYPES)
@pytest.mark.parametrize("granularity", ["tensor", "row", "group"])
def test_every_type_holds_embedding_head_and_linears_bit_for_bit(tmp_path, type_name, granularity):
    codes = {"q1_0": "binary", "q4_0": "3-plane", "q5_0": "4-plane"}.get(type_name, "ternary")
    scheme = weight_scheme(codes, granularity, 256)
    config = LlamaConfig(**{**SIZES, "hidden_size": 256})
    packed = pack(tmp_path / "packed", config, scheme, selection=Selection(roles=ONE_BIT_TABLES))
    facts = export(packed, tmp_path / "out", type=type_name)
    assert facts["type"] == type_name
    file = open_gguf(tmp_path / "out" / MODEL_NAME)
    one_bit = [tensor.name for tensor in file.tensors.values() if tensor.type_name == type_name.upper()]
    assert {"token_embd.weight", "output.weight"} <= set(one_bit)
    assert len(one_bit) == 2 * 7 + 2
    assert file.metadata["general.file_type"] == GGML_TYPES[type_name].file_type
    assert_whole(packed, tmp_path / "out")


def test_auto_takes_the_smallest_type_and_says_why_it_took_no_smaller_one(tmp_path):
    config = LlamaConfig(**{**SIZES, "hidden_size": 192, "num_attention_heads": 6})
    facts = export(pack(tmp_path / "packed", config), tmp_path / "out")
    assert facts["type"] == "q2_0"
    assert set(facts["rejected"]) == {"q1_0", "tq1_0", "tq2_0"}
    assert "model.layers.0.self_attn.q_proj: its 192 inputs are not a multiple" in facts["rejected"]["q1_0"]


def test_weights_of_several_planes_go_into_four_bits_or_five(tmp_path):
    for planes, smallest in ((2, "q4_0"), (3, "q4_0"), (4, "q5_0")):
        packed = pack(tmp_path / f"{planes}", weight=WeightScheme("binary", "group", 32, planes=planes))
        facts = export(packed, tmp_path / f"out {planes}")
        assert facts["type"] == smallest
        assert "q2_0" in facts["rejected"]
        assert_whole(packed, tmp_path / f"out {planes}")


def test_rows_that_no_block_fits_are_refused_by_name(tmp_path):
    config = LlamaConfig(**{**SIZES, "hidden_size": 72, "intermediate_size": 104})
    packed = pack(tmp_path / "packed", config)
    with open_packed(packed) as source, pytest.raises(FormatError) as caught:
        check(source, ExportOptions())
    assert "model.layers.0.self_attn.q_proj: its 72 inputs are not a multiple of the 64" in str(caught.value)
    assert "weight.granularity=row" in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "type_name", "words"),
    [
        (WeightScheme("ternary"), "q1_0", ("no code 0", "Types that hold it: q2_0")),
        (WeightScheme("binary", "group", 64), "q1_0", ("one for every 64 inputs", "Types that hold it: q2_0")),
        (WeightScheme("binary"), "tq1_0", ("128 inputs are not a multiple of the 256", "q1_0, q2_0")),
        (WeightScheme("binary"), "q4_0", ("is for weights of several planes", "Types that hold it: q1_0, q2_0")),
        (WeightScheme("binary", planes=2), "q2_0", ("no code -3", "Types that hold it: q4_0, q5_0")),
        (WeightScheme("binary", planes=4), "q4_0", ("no code -15", "Types that hold it: q5_0")),
    ],
)
def test_a_type_that_a_layer_does_not_fit_is_refused_with_those_that_do(tmp_path, scheme, type_name, words):
    with open_packed(pack(tmp_path / "packed", weight=scheme)) as source, pytest.raises(FormatError) as caught:
        check(source, ExportOptions(type=type_name))
    assert "model.layers.0.self_attn.q_proj" in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def test_an_unknown_type_is_refused_with_the_known_ones(tmp_path):
    with open_packed(pack(tmp_path / "packed")) as source, pytest.raises(ConfigError, match=r"q3.*auto, q1_0, q2_0"):
        check(source, ExportOptions(type="q3"))


def test_scales_that_only_float32_holds_are_refused_before_anything_is_written(tmp_path):
    packed = pack(tmp_path / "packed", weight=WeightScheme(scale_dtype="float32"))
    with (
        open_packed(packed) as source,
        pytest.raises(FormatError, match=r"q_proj has float32 scales.*scale_dtype=float16"),
    ):
        check(source, ExportOptions())


@pytest.mark.parametrize("table", TABLE_BITS)
def test_tables_become_q8_0_and_a_tied_head_is_left_out(tmp_path, table):
    packed = pack(tmp_path / "packed", FAMILIES["smollm"], embedding=table, head=table)
    export(packed, tmp_path / "out")
    file = open_gguf(tmp_path / "out" / MODEL_NAME)
    assert file.tensors["token_embd.weight"].type_name == "Q8_0"
    assert "output.weight" not in file.tensors
    assert_whole(packed, tmp_path / "out")


def test_an_int8_table_whose_rows_are_no_blocks_becomes_float32(tmp_path):
    config = LlamaConfig(**{**SIZES, "hidden_size": 80, "head_dim": 16})
    packed = pack(tmp_path / "packed", config, selection=Selection(include=("*.down_proj",)), embedding="int8")
    export(packed, tmp_path / "out")
    assert open_gguf(tmp_path / "out" / MODEL_NAME).tensors["token_embd.weight"].type_name == "F32"
    assert_whole(packed, tmp_path / "out")


@pytest.mark.parametrize(("tables", "type_name"), [("q8_0", "Q8_0"), ("f16", "F16")])
def test_float_tables_are_rounded_only_where_it_is_asked_for(tmp_path, tables, type_name):
    packed = pack(tmp_path / "packed")
    export(packed, tmp_path / "rounded", tables=tables)
    file = open_gguf(tmp_path / "rounded" / MODEL_NAME)
    assert file.tensors["token_embd.weight"].type_name == file.tensors["output.weight"].type_name == type_name
    assert_whole(packed, tmp_path / "rounded", tables=tables)
    with open_packed(packed) as source:
        dense = source.dense("model.embed_tokens.weight")
        rounded = expected(source, "model.embed_tokens.weight", ExportOptions(tables=tables))
    assert not torch.equal(rounded, dense)
    assert torch.allclose(rounded, dense, atol=0.02)


def test_a_value_that_float16_cannot_hold_is_refused(tmp_path):
    from bitnet_train.exporters.gguf.rounded_table import encode_table

    with pytest.raises(FormatError, match=r"lm_head.weight has a value of magnitude 1e\+06.*exact` or q8_0"):
        encode_table("lm_head.weight", torch.full((2, 32), 1e6), "f16")


def test_a_head_of_its_own_is_refused_where_llama_cpp_has_none(tmp_path):
    packed = pack(tmp_path / "packed", FAMILIES["gemma"], selection=Selection(roles=("mlp", "head")))
    with open_packed(packed) as source, pytest.raises(FormatError, match=r"lm_head.weight: llama.cpp's gemma has no"):
        check(source, ExportOptions())


def test_a_bias_that_llama_cpp_does_not_load_is_refused(tmp_path):
    from transformers import Qwen3Config

    packed = pack(tmp_path / "packed", Qwen3Config(**SIZES, head_dim=32, attention_bias=True))
    with open_packed(packed) as source, pytest.raises(FormatError, match=r"o_proj.bias: llama.cpp's qwen3 has no such"):
        check(source, ExportOptions())


def test_an_unknown_architecture_is_refused_with_the_known_ones(tmp_path):
    from transformers import GPTNeoXConfig

    sizes = {key: SIZES[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")}
    packed = pack(tmp_path / "packed", GPTNeoXConfig(**sizes, num_hidden_layers=1))
    with open_packed(packed) as source, pytest.raises(FormatError, match=r"model_type=gpt_neox.*Known: llama, mistral"):
        check(source, ExportOptions())


def test_a_model_without_a_tokenizer_takes_token_ids(tmp_path):
    facts = export(pack(tmp_path / "packed"), tmp_path / "out")
    assert facts["tokenizer"] == "no_vocab"
    assert "no tokenizer" in facts["notes"][0]


def test_the_readme_says_what_the_file_is(tmp_path):
    export(pack(tmp_path / "packed"), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: someone/random" in card
    assert "The 14 1-bit layers are blocks of Q1_0, 1.125 bits a weight" in card


@pytest.mark.slow
def test_the_bundled_tokenizer_goes_into_the_file(tmp_path):
    tokenizer = load_pretrained("tiny").tokenizer
    config = LlamaConfig(**{**SIZES, "vocab_size": len(tokenizer) + 3})
    facts = export(pack(tmp_path / "packed", config, tokenizer=tokenizer), tmp_path / "out")
    assert (facts["tokenizer"], facts["pre_tokenizer"]) == ("gpt2", "gpt-2")
    fields = gguf.GGUFReader(tmp_path / "out" / MODEL_NAME).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert tokens[:-3] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert tokens[-3:] == [f"[PAD{len(tokenizer) + i}]" for i in range(3)]
    assert kinds[0] == gguf.TokenType.CONTROL
    assert kinds[100] == gguf.TokenType.NORMAL
    assert kinds[-3:] == [gguf.TokenType.UNUSED] * 3
    assert fields["tokenizer.chat_template"].contents() == tokenizer.chat_template
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False


def test_a_damaged_file_is_refused_when_it_is_read_back(tmp_path):
    export(pack(tmp_path / "packed"), tmp_path / "out")
    path = tmp_path / "out" / MODEL_NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="truncated or damaged"):
        list(read_back(path))


def test_a_changed_weight_is_seen_when_it_is_read_back(tmp_path):
    packed = pack(tmp_path / "packed")
    export(packed, tmp_path / "out")
    path = tmp_path / "out" / MODEL_NAME
    tensor = open_gguf(path).tensors["blk.1.ffn_down.weight"]
    content = bytearray(path.read_bytes())
    content[tensor.start + 10] ^= 1
    path.write_bytes(content)
    with pytest.raises(AssertionError, match="down_proj"):
        assert_whole(packed, tmp_path / "out")


def test_without_the_package_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    packed = pack(tmp_path / "packed")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with open_packed(packed) as source, pytest.raises(ConfigError, match=r"pip install 'bitnet-train\[gguf\]'"):
        check(source, ExportOptions())
