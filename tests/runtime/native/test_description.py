from __future__ import annotations

import json

import numpy as np
import pytest

import bitnet_train as bt
from bitnet_train.exporters.packed import export_packed
from bitnet_train.packed import read_manifest, verify_files
from bitnet_train.packed.names import NATIVE_NAME, WEIGHTS_NAME
from bitnet_train.runtime.native.description import describe
from bitnet_train.runtime.native.support import fit
from bitnet_train.runtime.native.tensor_file import TensorFile


def described(folder):
    manifest = read_manifest(folder)
    with TensorFile(folder / WEIGHTS_NAME) as weights:
        return json.loads(json.dumps(describe(folder, manifest, fit(folder, manifest), weights)))


def tensors_of(body):
    places = [{key: value for key, value in place.items() if key not in ("kind", "name")} for place in body["places"]]
    of_places = {value for place in places for value in place.values() if isinstance(value, str)}
    words = {"binary", "ternary", "2-plane", "3-plane", "4-plane", "int8", "int4", "sign"}
    return {*body["inv_freq"], *body["unused"], *(of_places - words)}


def test_every_tensor_of_every_family_is_named_and_every_module_has_its_place(family_folder):
    body = described(family_folder)
    assert tensors_of(body) == set(read_manifest(family_folder).tensors)
    names = [place["name"] for place in body["places"]]
    assert len(set(names)) == len(names)
    assert names[:2] == ["model.embed_tokens", "lm_head"]
    assert len(body["inv_freq"]) == len(body["model"]["rope_scaling"])
    assert len(body["model"]["layer_ropes"]) == len(body["model"]["layer_windows"])


def test_numbers_come_back_as_the_core_was_given_them(make_folder):
    folder = make_folder("gemma3")
    body, architecture = described(folder), fit(folder, read_manifest(folder))
    assert body["model"]["rms_eps"] == architecture.rms_eps
    assert body["model"]["embedding_scale"] == float(np.float32(64**0.5))  # of the tensor: sqrt(hidden)
    assert {place["offset"] for place in body["places"] if place["kind"] == "norm"} == {1.0}


def test_fused_projections_say_what_their_rows_are(make_folder):
    places = {place["name"]: place for place in described(make_folder("phi3"))["places"]}
    attention = "model.layers.0.self_attn"
    parts = [[f"{attention}.q_proj", 64], [f"{attention}.k_proj", 32], [f"{attention}.v_proj", 32]]
    assert places[f"{attention}.qkv_proj"]["parts"] == parts


@pytest.mark.parametrize(("bits", "kind"), [("exact", "floats"), ("int8", "table"), ("int5", "table")])
def test_tables_are_described_in_their_bits(make_folder, bits, kind):
    embedding = described(make_folder("llama", embedding=bits, head=bits))["places"][0]
    assert embedding["kind"] == kind
    assert embedding.get("bits") == {"int8": 8, "int5": 5}.get(bits)
    assert ("multipliers" in embedding) is (bits == "int5")


def test_a_tied_head_has_no_tensor_of_its_own(make_folder):
    assert described(make_folder("llama_biased_and_tied"))["places"][1] == {"kind": "tied", "name": "lm_head"}


def test_an_export_has_the_file_vouches_for_it_and_runs_as_before(make_trained, byte_tokenizer, tmp_path):
    export_packed(make_trained(), byte_tokenizer, tmp_path / "out", {})
    assert NATIVE_NAME in verify_files(tmp_path / "out").files
    assert json.loads((tmp_path / "out" / NATIVE_NAME).read_text()) == described(tmp_path / "out")
    assert len(bt.NativeModel.load(tmp_path / "out").generate_ids([1, 2, 3], 4, stop_ids=())) == 4


def test_what_the_core_does_not_compute_is_exported_without_it(make_trained, tmp_path):
    export_packed(make_trained("gpt2"), None, tmp_path / "out", {})
    assert NATIVE_NAME not in verify_files(tmp_path / "out").files


def test_a_folder_of_before_gets_it_by_import(make_folder, tmp_path):
    from bitnet_train.__main__ import main

    folder = make_folder("llama", embedding="int8", head="int8")
    assert NATIVE_NAME not in read_manifest(folder).files
    assert main(["import", f"model.source={folder}", f"run.dir={tmp_path / 'run'}", "--quiet"]) == 0
    made = tmp_path / "run" / "artefact"
    assert NATIVE_NAME in verify_files(made).files
    before, after = (bt.NativeModel.load(path).logits([5, 6, 7]) for path in (folder, made))
    assert np.array_equal(before, after)
