from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bitnet_train.errors import FormatError
from bitnet_train.packed.manifest import (
    FORMAT,
    SCHEMA,
    FileEntry,
    LayerEntry,
    Manifest,
    Sizes,
    TableEntry,
    TensorEntry,
    seal,
)
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme

SHA = "0" * 64

MANIFEST = Manifest(
    created_by={"python": "3.11.7"},
    base_model="tiny",
    recipe="quickstart",
    model_class="LlamaForCausalLM",
    attention="sdpa",
    layers=(LayerEntry("a.b", WeightScheme(), ActivationScheme("sign"), 2, 64, False, SHA, SHA),),
    tensors={
        "a.b.planes": TensorEntry("uint8", (1, 2, 8), SHA),
        "a.b.scale": TensorEntry("float16", (2, 1), SHA),
    },
    tied={"head": "a.b.scale"},
    files={"weights.safetensors": FileEntry(10, SHA)},
    sizes=Sizes(16, 4, 256, 10),
    facts={"loss": 1.5, "notes": ["é", None, True]},
)


TABLES = replace(  # a tied pair whose head has a bias
    MANIFEST,
    tables=(
        TableEntry("embed", "embedding", 9, 64, False, SHA, SHA),
        TableEntry("lm_head", "linear", 9, 64, True, SHA, SHA),
    ),
    tensors={
        **MANIFEST.tensors,
        "embed.codes": TensorEntry("int8", (9, 64), SHA),
        "embed.scale": TensorEntry("float16", (9,), SHA),
        "lm_head.bias": TensorEntry("float32", (9,), SHA),
    },
    tied={"lm_head.codes": "embed.codes", "lm_head.scale": "embed.scale"},
)


NARROW = replace(  # the same in 4 bits, each row in two groups
    TABLES,
    tables=tuple(replace(table, bits=4) for table in TABLES.tables),
    tensors={
        **TABLES.tensors,
        "embed.codes": TensorEntry("uint8", (4, 9, 8), SHA),
        "embed.multipliers": TensorEntry("uint8", (9, 1), SHA),
    },
    tied={**TABLES.tied, "lm_head.multipliers": "embed.multipliers"},
)


def signed(body: dict) -> str:
    """Return the text of a manifest with this body and a correct hash of its own."""
    body.pop("manifest_sha256", None)
    return seal(body)


def body(manifest: Manifest = MANIFEST) -> dict:
    return json.loads(manifest.to_json())


@pytest.mark.parametrize("manifest", [MANIFEST, TABLES, NARROW], ids=["layers", "tables", "narrow tables"])
def test_a_manifest_reads_back_equal(manifest):
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert body(manifest)["format"] == FORMAT


def test_only_a_folder_with_tables_asks_for_a_reader_that_knows_them():
    assert (body()["schema"], "tables" in body()) == (1, False)
    assert (body(TABLES)["schema"], len(body(TABLES)["tables"])) == (2, 2)


def test_only_a_table_of_fewer_bits_than_8_says_its_bits_and_asks_for_a_reader_that_knows_them():
    assert body(NARROW)["schema"] == SCHEMA == 3
    assert [table["bits"] for table in body(NARROW)["tables"]] == [4, 4]
    assert all("bits" not in table for table in body(TABLES)["tables"])
    one_of_8 = replace(NARROW, tables=NARROW.tables[:1], tied={})
    assert [table["bits"] for table in body(one_of_8)["tables"]] == [4]


def test_tables_are_unknown_to_schema_1_and_demanded_by_schema_2():
    with pytest.raises(FormatError, match="does not know: `tables`"):
        Manifest.from_json(signed({**body(TABLES), "schema": 1}))
    with pytest.raises(FormatError, match="has no field `tables`"):
        Manifest.from_json(signed({**body(), "schema": 2}))
    with pytest.raises(FormatError, match="has schema 2 and `tables` that schema 1 says"):
        Manifest.from_json(signed({**body(), "schema": 2, "tables": []}))


def test_bits_are_unknown_to_schema_2_and_demanded_by_schema_3():
    with pytest.raises(FormatError, match="does not know: `bits`"):
        Manifest.from_json(signed({**body(NARROW), "schema": 2}))
    with pytest.raises(FormatError, match="has no field `bits`"):
        Manifest.from_json(signed({**body(TABLES), "schema": 3}))
    eight = [{**table, "bits": 8} for table in body(TABLES)["tables"]]
    with pytest.raises(FormatError, match="has schema 3 and `tables` that schema 2 says"):
        Manifest.from_json(signed({**body(TABLES), "schema": 3, "tables": eight}))


def test_a_tensor_is_stored_under_its_name_or_under_the_one_it_is_tied_to():
    assert TABLES.stored_name("lm_head.codes") == "embed.codes"
    assert TABLES.stored_name("lm_head.bias") == "lm_head.bias"


@pytest.mark.parametrize("manifest", [MANIFEST, TABLES, NARROW], ids=["layers", "tables", "narrow tables"])
def test_every_flipped_byte_of_a_manifest_is_found(manifest):
    text = manifest.to_json().encode()
    undetected = []
    for position in range(len(text)):
        damaged = bytearray(text)
        damaged[position] ^= 1
        try:
            same = Manifest.from_json(damaged.decode(errors="replace")) == manifest
        except FormatError:
            continue
        if not same:
            undetected.append(position)
    assert undetected == []


def test_a_cut_manifest_is_reported_as_damaged():
    text = MANIFEST.to_json()
    with pytest.raises(FormatError, match=r"manifest\.json is not valid JSON .* copy the folder again"):
        Manifest.from_json(text[: len(text) // 2])


def test_a_newer_schema_asks_for_an_upgrade():
    newer = {**body(), "schema": SCHEMA + 1, "a_field_of_the_future": {}}
    with pytest.raises(FormatError, match=r"written by a newer version.*pip install --upgrade bitnet-train"):
        Manifest.from_json(signed(newer))


def test_an_unknown_layout_is_named():
    with pytest.raises(FormatError, match="says format 'planes_v9'; this version reads 'planes_v1'"):
        Manifest.from_json(signed({**body(), "format": "planes_v9"}))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "..", ".hidden", "", "a\\b", "manifest.json", "C:x"])
def test_a_file_name_that_leaves_the_folder_is_refused(name):
    files = {**body()["files"], name: {"num_bytes": 1, "sha256": SHA}}
    with pytest.raises(FormatError, match="is not a plain file name"):
        Manifest.from_json(signed({**body(), "files": files}))


WRONG = {
    "a missing field": (lambda b: b.pop("tied"), "has no field `tied`"),
    "an unknown field": (lambda b: b.update(extra=1), "does not know: `extra`"),
    "a wrong type": (lambda b: b.update(recipe=3), "`recipe` must be a str, not 3"),
    "a boolean count": (lambda b: b["sizes"].update(packed_bytes=True), "`packed_bytes` must be a int, not True"),
    "a negative count": (lambda b: b["sizes"].update(packed_bytes=-1), "`packed_bytes` must be at least 0"),
    "an unknown scheme": (lambda b: b["layers"][0]["scheme"].update(name="quaternary"), "not a scheme.*quaternary"),
    "an unknown scheme field": (lambda b: b["layers"][0]["scheme"].update(zero=1), "not a scheme.*zero"),
    "an unknown kind": (lambda b: b["layers"][0].update(kind="table"), "`kind` is 'table'. Allowed: linear, embedding"),
    "no kind": (lambda b: b["layers"][0].pop("kind"), "has no field `kind`"),
    "an embedding with activations": (lambda b: b["layers"][0].update(kind="embedding"), "an embedding has no bias"),
    "an unknown activation": (lambda b: b["layers"][0].update(activation="int3"), "not a scheme.*int3"),
    "a short hash": (lambda b: b["layers"][0].update(codes_sha256="ab"), "'ab' is not a SHA-256"),
    "a layer twice": (lambda b: b["layers"].append(b["layers"][0]), "a layer is named twice"),
    "a layer without planes": (lambda b: b["tensors"].pop("a.b.planes"), "`tensors` lacks 'a.b.planes'"),
    "a tie to nothing": (lambda b: b.update(tied={"head": "nowhere"}), "`tensors` lacks 'nowhere'"),
    "no weights": (lambda b: b.update(files={}), "does not name weights.safetensors"),
    "a list for an object": (lambda b: b.update(tensors=[]), "`tensors` must be a dict"),
    "a fractional dimension": (lambda b: b["tensors"]["a.b.scale"].update(shape=[1.5]), "must be a dimension, not 1.5"),
    "a schema of text": (lambda b: b.update(schema="1"), "`schema` must be a positive integer"),
}


@pytest.mark.parametrize(("damage", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_manifest_with_a_wrong_field_is_refused(damage, message):
    wrong = body()
    damage(wrong)
    with pytest.raises(FormatError, match=message):
        Manifest.from_json(signed(wrong))


WRONG_TABLES = {
    "no name": (lambda b: b["tables"][0].pop("name"), "has no field `name`"),
    "an unknown field": (lambda b: b["tables"][0].update(zero=1), "does not know: `zero`"),
    "an unknown kind": (lambda b: b["tables"][0].update(kind="norm"), "`kind` is 'norm'"),
    "no rows": (lambda b: b["tables"][0].update(num_rows=0), "`num_rows` must be at least 1, not 0"),
    "rows in words": (lambda b: b["tables"][0].update(num_rows="9"), "`num_rows` must be a int"),
    "an embedding with a bias": (lambda b: b["tables"][0].update(has_bias=True), "an embedding has no bias"),
    "a short hash": (lambda b: b["tables"][1].update(scale_sha256="ab"), "'ab' is not a SHA-256"),
    "a table twice": (lambda b: b["tables"].append(b["tables"][0]), "a layer is named twice"),
    "a table that is a layer": (lambda b: b["tables"][1].update(name="a.b"), "a layer is named twice"),
    "two heads": (lambda b: b["tables"][0].update(kind="linear"), "`tables` has two of kind linear"),
    "no codes": (lambda b: b["tensors"].pop("embed.codes"), "`tensors` lacks 'embed.codes'"),
    "no scale": (lambda b: b["tied"].pop("lm_head.scale"), "'lm_head.scale' must be float16 .9. .* is not there"),
    "no bias": (lambda b: b["tensors"].pop("lm_head.bias"), "'lm_head.bias' must be float32 .9."),
    "other rows": (lambda b: b["tables"][0].update(num_rows=8), "'embed.codes' must be int8 .8, 64. .* int8 .9, 64."),
    "float codes": (lambda b: b["tensors"]["embed.codes"].update(dtype="float16"), "must be int8 .9, 64. for a table"),
    "wide scales": (lambda b: b["tensors"]["embed.scale"].update(dtype="float32"), "must be float16 .9. for a table"),
    "one tie of two": (
        lambda b: (
            b["tied"].pop("lm_head.scale"),
            b["tensors"].update({"lm_head.scale": b["tensors"]["embed.scale"]}),
        ),
        "codes and scale of one can be those of the other",
    ),
    "a tie from outside": (lambda b: b["tied"].update({"x.weight": "embed.codes"}), "and nothing else"),
    "a tie to outside": (
        lambda b: (
            b["tensors"].update({"norm.weight": b["tensors"]["lm_head.bias"]}),
            b["tied"].update({"lm_head.bias": "norm.weight"}),
        ),
        "and nothing else",
    ),
}


@pytest.mark.parametrize(("damage", "message"), WRONG_TABLES.values(), ids=WRONG_TABLES.keys())
def test_a_manifest_with_a_wrong_table_is_refused(damage, message):
    wrong = body(TABLES)
    damage(wrong)
    with pytest.raises(FormatError, match=message):
        Manifest.from_json(signed(wrong))


WRONG_NARROW = {
    "other bits": (lambda b: b["tables"][0].update(bits=3), "`bits` is 3. Allowed: 8, 5, 4"),
    "bits of a switch": (lambda b: b["tables"][0].update(bits=True), "`bits` must be a int, not True"),
    "no multipliers": (lambda b: b["tied"].pop("lm_head.multipliers"), "'lm_head.multipliers' must be uint8 .9, 1."),
    "codes of 5 bits": (lambda b: b["tensors"]["embed.codes"].update(shape=[5, 9, 8]), "must be uint8 .4, 9, 8."),
    "codes in bytes": (lambda b: b["tensors"]["embed.codes"].update(dtype="int8"), "must be uint8 .4, 9, 8."),
    "a tied pair of two kinds": (lambda b: b["tables"][1].update(bits=5), "'lm_head.codes' must be uint8 .5, 9, 8."),
}


@pytest.mark.parametrize(("damage", "message"), WRONG_NARROW.values(), ids=WRONG_NARROW.keys())
def test_a_manifest_with_a_wrong_table_of_few_bits_is_refused(damage, message):
    wrong = body(NARROW)
    damage(wrong)
    with pytest.raises(FormatError, match=message):
        Manifest.from_json(signed(wrong))


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": NaN}', "[" * 100_000, "[]", "", '"text"'])
def test_json_that_parsers_disagree_about_is_refused(text):
    with pytest.raises(FormatError):
        Manifest.from_json(text)
