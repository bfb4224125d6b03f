from __future__ import annotations

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn

from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.packed import export_packed, open_weights, read_manifest
from bitnet_train.packed.int8_tables import int8_tables
from bitnet_train.packed.sizes import render_sizes, table_sizes
from bitnet_train.packed.source import open_packed
from bitnet_train.quant.int8_table import quantize_table
from bitnet_train.quant.scheme import TABLE_BITS, WeightScheme
from bitnet_train.quant.table import table_codes

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


def test_a_tied_table_is_stored_once_and_named_twice(make_trained, tmp_path):
    model = make_trained()
    manifest = export_packed(model, None, tmp_path / "out", {}, embedding="int8", head="int8")
    stored = load_file(tmp_path / "out" / "weights.safetensors")
    codes, scale = quantize_table(model.get_input_embeddings().weight)
    assert torch.equal(stored[f"{EMBEDDING}.codes"], codes)
    assert torch.equal(stored[f"{EMBEDDING}.scale"], scale)
    assert [(table.name, table.kind) for table in manifest.tables] == [(EMBEDDING, "embedding"), (HEAD, "linear")]
    assert manifest.tied == {f"{HEAD}.{part}": f"{EMBEDDING}.{part}" for part in ("codes", "scale")}
    assert not {f"{EMBEDDING}.weight", f"{HEAD}.weight", f"{HEAD}.codes"} & set(stored)


@pytest.mark.parametrize(("embedding", "head"), [("int8", "exact"), ("exact", "int8"), ("int8", "int8")])
def test_an_untied_model_chooses_for_each_table(make_trained, tmp_path, embedding, head):
    model = make_trained("odd")
    manifest = export_packed(model, None, tmp_path / "out", {}, embedding=embedding, head=head)
    stored = set(load_file(tmp_path / "out" / "weights.safetensors"))
    for name, choice in ((EMBEDDING, embedding), (HEAD, head)):
        parts = {f"{name}.codes", f"{name}.scale"} if choice == "int8" else {f"{name}.weight"}
        assert {key for key in stored if key.startswith(f"{name}.")} == parts
    assert len(manifest.tables) == [embedding, head].count("int8")


@pytest.mark.parametrize(("embedding", "head"), [("int4", "int4"), ("int5", "int8"), ("exact", "int5")])
def test_tables_of_few_bits_are_stored_packed_and_read_as_int8(make_trained, tmp_path, embedding, head):
    model = make_trained("odd")
    export_packed(model, None, tmp_path / "out", {}, embedding=embedding, head=head)
    stored = load_file(tmp_path / "out" / "weights.safetensors")
    with open_packed(tmp_path / "out") as source:
        for name, choice in ((EMBEDDING, embedding), (HEAD, head)):
            if choice == "exact":
                continue
            bits = TABLE_BITS[choice]
            table = source.table(name)
            codes, scale = table_codes(model.get_submodule(name).weight, bits)
            assert torch.equal(table.codes, codes)
            assert torch.equal(table.scale, scale.float())
            assert stored[f"{name}.codes"].nbytes == (258 * 6 * bits if bits < 8 else 258 * 48)  # of 48 inputs
            assert (f"{name}.multipliers" in stored) == (bits < 8)


def test_a_tied_table_of_4_bits_is_stored_once(make_trained, tmp_path):
    manifest = export_packed(make_trained(), None, tmp_path / "out", {}, embedding="int4", head="int4")
    parts = ("codes", "multipliers", "scale")
    assert manifest.tied == {f"{HEAD}.{part}": f"{EMBEDDING}.{part}" for part in parts}
    assert read_manifest(tmp_path / "out").tables == manifest.tables
    (size,) = table_sizes(manifest.tables, manifest.tied)
    assert (size.packed_bytes, size.scale_bytes) == (258 * (32 + 1), 2 * 258)
    console = Console(record=True, width=120)
    console.print(render_sizes(manifest))
    assert f"{EMBEDDING}, int4" in console.export_text()
    assert f"`{EMBEDDING}` is rounded to int4 with" in (tmp_path / "out" / "README.md").read_text()


def test_a_damaged_table_of_4_bits_names_file_and_tensor(make_trained, tmp_path):
    manifest = export_packed(make_trained("odd"), None, tmp_path / "out", {}, embedding="int4")
    path = tmp_path / "out" / "weights.safetensors"
    tensors = load_file(path)
    tensors[f"{EMBEDDING}.codes"][:, 7, 0] = 0
    save_file(tensors, path, metadata={"format": "pt"})
    with (
        open_weights(tmp_path / "out", manifest) as weights,
        pytest.raises(FormatError, match=rf"weights\.safetensors: {EMBEDDING}\.codes: codes: one is -8, which"),
    ):
        weights.table(manifest.tables[0])


@pytest.mark.slow
def test_exact_is_the_default_and_writes_what_older_versions_read(make_trained, tmp_path):
    manifest = export_packed(make_trained(), None, tmp_path / "out", {})
    assert manifest.tables == ()
    assert '"schema": 1' in (tmp_path / "out" / "manifest.json").read_text()


def test_a_bias_of_the_head_is_stored_in_float32(make_trained, tmp_path):
    model = make_trained("odd")
    model.lm_head = nn.Linear(48, 258)
    manifest = export_packed(model, None, tmp_path / "out", {}, head="int8")
    stored = load_file(tmp_path / "out" / "weights.safetensors")
    assert torch.equal(stored["lm_head.bias"], model.lm_head.bias)
    assert manifest.tables[0].has_bias


@pytest.mark.parametrize(("embedding", "head"), [("int8", "exact"), ("exact", "int8"), ("int4", "int8")])
def test_a_tied_pair_cannot_be_two_things(make_trained, tmp_path, embedding, head):
    with pytest.raises(ConfigError, match=r"this model ties them: it has one. Give both keys the same value"):
        export_packed(make_trained(), None, tmp_path / "out", {}, embedding=embedding, head=head)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("role", "key"), [("embedding", "export.embedding"), ("head", "export.head")])
def test_a_table_that_is_1_bit_cannot_be_int8_too(make_trained, role, key):
    model = make_trained("odd", WeightScheme("ternary"), roles=("mlp", role))
    with pytest.raises(ConfigError, match=rf"`{key}=int8`, but .* is 1-bit already \(ternary per row\)"):
        int8_tables(model, **{"embedding": "exact", "head": "exact", role: "int8"})


def test_a_head_beside_a_1_bit_embedding_can_be_int8(make_trained):
    model = make_trained("llama", roles=("mlp", "embedding"))
    assert list(int8_tables(model, embedding="exact", head="int8")) == [HEAD]


def test_a_table_of_another_class_is_refused_because_it_may_do_more(make_trained):
    class Scaled(nn.Embedding):
        def forward(self, token_ids):
            return super().forward(token_ids) * 8

    model = make_trained("odd")
    model.set_input_embeddings(Scaled(258, 48))
    with pytest.raises(ConfigError, match=r"the token embedding of this model is Scaled: only a plain nn.Embedding"):
        int8_tables(model, embedding="int8", head="exact")


@pytest.mark.parametrize("key", ["embedding", "head"])
def test_an_unknown_format_names_the_key_and_those_there_are(make_trained, key):
    with pytest.raises(ConfigError, match=rf"`export.{key}=int7` is not a known choice. Allowed: exact, int8, int5"):
        int8_tables(make_trained(), **{"embedding": "exact", "head": "exact", key: "int7"})


def test_a_table_with_a_weight_that_is_not_finite_is_refused_by_name(make_trained, tmp_path):
    model = make_trained("odd")
    with torch.no_grad():
        model.lm_head.weight[3, 1] = float("nan")
    with pytest.raises(FormatError, match=r"lm_head: Row 3 of a 258 x 48 table"):
        export_packed(model, None, tmp_path / "out", {}, head="int8")
    assert not (tmp_path / "out").exists()


def test_sizes_and_card_name_the_table_and_leave_the_sums_of_the_packed_layers_alone(make_trained, tmp_path):
    exact = export_packed(make_trained(), None, tmp_path / "exact", {})
    manifest = export_packed(make_trained(), None, tmp_path / "out", {}, embedding="int8", head="int8")
    (size,) = table_sizes(manifest.tables, manifest.tied)
    assert (size.packed_bytes, size.scale_bytes, size.fp16_bytes) == (258 * 64, 2 * 258, 2 * 258 * 64)
    assert manifest.sizes.packed_bytes == exact.sizes.packed_bytes
    assert manifest.sizes.total_bytes < exact.sizes.total_bytes - 258 * 64 / 2
    console = Console(record=True, width=120)
    console.print(render_sizes(manifest))
    assert f"{EMBEDDING}, int8" in console.export_text()
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"`{EMBEDDING}` is rounded to int8 with one float16 scale a row: 16,512 bytes and 516 bytes" in card
    assert "rounded to int8" not in (tmp_path / "exact" / "README.md").read_text()
