"""The round-trip matrix: every format, every scheme, every grain, shapes that fit blocks and shapes that do not.

A format either refuses a model before it writes, naming a layer and a way out, or every weight comes back bit for bit.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from bitnet_train.errors import BitnetTrainError, ConfigError, FormatError
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.record import read_record, verify_export
from bitnet_train.exporters.registry import EXPORTERS, export_as
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.convert import convert
from bitnet_train.packed import export_packed
from bitnet_train.packed.names import EXPORT_NAME
from bitnet_train.packed.source import open_packed
from bitnet_train.quant.scheme import ActivationScheme
from tests.fixtures.schemes import CODE_SETS, weight_scheme

GRAINS = (("tensor", 128), ("row", 128), ("group", 64), ("group", 128), ("group", 256), ("group", 32))
SHAPES = {"blocks": (256, 512), "half_blocks": (192, 320), "no_block": (72, 102)}  # hidden and ff; 102 % 4 is not 0
QUICK = {("blocks", "group", 128), ("no_block", "tensor", 128)}
CASES = [
    pytest.param(
        *(shape, grain, group_size),
        id=f"{shape}-{grain}{group_size if grain == 'group' else ''}",
        marks=() if (shape, grain, group_size) in QUICK else pytest.mark.slow,
    )
    for shape, (hidden, ff) in SHAPES.items()
    for grain, group_size in GRAINS
    if grain != "group" or (hidden % group_size == 0 and ff % group_size == 0)
]
OPTIONS = {
    "gguf": tuple(ExportOptions(type=name) for name in ("auto", "q1_0", "q2_0", "tq1_0", "tq2_0", "q4_0", "q5_0")),
    "hf_bitnet": tuple(ExportOptions(linear_class=name) for name in ("autobitlinear", "bitlinear")),
    "plain": tuple(ExportOptions(dtype=name) for name in ("bfloat16", "float32")),
}


@pytest.fixture(scope="module")
def tiny_tokenizer():
    return load_pretrained("tiny").tokenizer


@pytest.fixture(scope="module")
def packed(tmp_path_factory, tiny_tokenizer):
    """Return packed folders of one-block Llamas by shape, scheme and grain, made when first asked for."""
    made = {}

    def get(shape, name, grain, group_size):
        key = (shape, name, grain, group_size)
        hidden, ff = SHAPES[shape]
        if key not in made:
            made[key] = tmp_path_factory.mktemp("packed") / "folder"
            _pack(hidden, ff, weight_scheme(name, grain, group_size), tiny_tokenizer, made[key])
        return made[key]

    return get


def _pack(hidden, ff, scheme, tokenizer, folder):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ff,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        vocab_size=len(tokenizer),
        bos_token_id=0,
        eos_token_id=0,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    convert(model, weight=scheme, activation=ActivationScheme("int8"))
    export_packed(model.eval(), tokenizer, folder, {"base_model": "random"})


@pytest.mark.parametrize(("shape", "grain", "group_size"), CASES)
@pytest.mark.parametrize("scheme", CODE_SETS)
@pytest.mark.parametrize("format_name", EXPORTERS)
def test_every_weight_comes_back_bit_for_bit_or_the_format_refuses_first(
    packed, tmp_path, format_name, shape, scheme, grain, group_size
):
    folder = packed(shape, scheme, grain, group_size)
    exporter = EXPORTERS[format_name]
    for number, options in enumerate(OPTIONS.get(format_name, (ExportOptions(),))):
        out = tmp_path / str(number)
        try:
            export_as(format_name, folder, out, options)
        except BitnetTrainError as error:
            refused = str(error)
        else:
            refused = ""
        if refused:
            assert not out.exists()
            assert "model.layers.0" in refused
            continue
        verify_export(out)
        with open_packed(folder) as source:
            left = {name.removesuffix(".weight"): name for name in source.weight_names()}
            for name, values in exporter.read_back(out):
                original = left.pop(name.removesuffix(".weight"))
                expected = exporter.expected(source, original, options).float()
                assert values.dtype == torch.float32
                assert values.shape == expected.shape, name
                assert torch.equal(values.view(torch.int32), expected.contiguous().view(torch.int32)), name
            assert not left, f"the file lacks {sorted(left)}"


@pytest.mark.slow
def test_what_fits_everywhere_is_refused_nowhere(packed, tmp_path):
    """Guards the matrix against formats that refuse everything."""
    tensor = packed("blocks", "ternary", "tensor", 128)
    for format_name in EXPORTERS:
        export_as(format_name, tensor, tmp_path / format_name)
    for options in OPTIONS["gguf"]:
        codes = {"q4_0": "2-plane", "q5_0": "4-plane"}.get(options.type, "binary")
        export_as("gguf", packed("blocks", codes, "row", 128), tmp_path / f"gguf-{options.type}", options)


def test_a_taken_target_is_left_alone_unless_it_is_an_earlier_export(packed, tmp_path):
    folder = packed("blocks", "binary", "row", 128)
    export_as("plain", folder, tmp_path / "out")
    before = read_record(tmp_path / "out")
    with pytest.raises(FormatError, match="not empty"):
        export_as("plain", folder, tmp_path / "out")
    export_as("plain", folder, tmp_path / "out", ExportOptions(dtype="float32"), force=True)
    assert read_record(tmp_path / "out").options != before.options
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FormatError, match=r"mine\.txt"):
        export_as("plain", folder, tmp_path / "out", force=True)


def test_the_record_says_what_it_was_made_from(packed, tmp_path):
    folder = packed("blocks", "binary", "row", 128)
    record = export_as("plain", folder, tmp_path / "out")
    with open_packed(folder) as source:
        assert record.source["manifest_sha256"] == source.manifest.sha256
    assert record.source["base_model"] == "random"
    assert set(record.files) == {path.name for path in (tmp_path / "out").iterdir()} - {EXPORT_NAME}


def test_unknown_formats_and_options_are_refused_with_the_choices(packed, tmp_path):
    folder = packed("blocks", "binary", "row", 128)
    with pytest.raises(ConfigError, match=r"onnx.*packed, gguf, hf_bitnet, plain, c_array"):
        export_as("onnx", folder, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"float8.*bfloat16"):
        ExportOptions(dtype="float8")
    assert list(tmp_path.iterdir()) == []
