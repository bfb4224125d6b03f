from __future__ import annotations

import hashlib
import json
import re
import shutil

import pytest
from safetensors.torch import load_file, save_file

from bitnet_train.errors import FormatError
from bitnet_train.packed import export_packed, open_weights, read_manifest, verify_files
from bitnet_train.packed.manifest import seal


@pytest.fixture(scope="module")
def exported(make_trained, byte_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "out"
    export_packed(make_trained(), byte_tokenizer, folder, {})
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def position_of(path, tensor_name):
    """Return where in a safetensors file the bytes of a tensor begin."""
    data = path.read_bytes()
    header_bytes = int.from_bytes(data[:8], "little")
    return 8 + header_bytes + json.loads(data[8 : 8 + header_bytes])[tensor_name]["data_offsets"][0]


def test_an_untouched_folder_verifies(folder):
    assert verify_files(folder) == read_manifest(folder)


def test_one_flipped_byte_in_any_file_is_found_and_the_file_named(folder):
    for name in read_manifest(folder).files:
        data = (folder / name).read_bytes()
        flip(folder / name, len(data) // 2)
        with pytest.raises(FormatError, match=f"{name} was changed or damaged"):
            verify_files(folder)
        (folder / name).write_bytes(data)
    verify_files(folder)


@pytest.mark.parametrize(
    "tensor_name",
    ["model.layers.1.mlp.up_proj.planes", "model.layers.0.self_attn.q_proj.scale", "model.embed_tokens.weight"],
)
def test_a_flipped_byte_in_a_tensor_names_that_tensor(folder, tensor_name):
    weights = folder / "weights.safetensors"
    flip(weights, position_of(weights, tensor_name))
    with pytest.raises(FormatError, match=rf"weights\.safetensors was changed.*: {tensor_name} has other bytes"):
        verify_files(folder)


def test_a_flipped_byte_in_the_header_is_found(folder):
    flip(folder / "weights.safetensors", 20)
    with pytest.raises(FormatError, match=r"weights\.safetensors was changed"):
        verify_files(folder)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_found(folder, kept):
    weights = folder / "weights.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(FormatError, match=rf"weights\.safetensors is truncated: .* instead of {len(data)}"):
        verify_files(folder)
    with (
        pytest.raises(FormatError, match=r"weights\.safetensors cannot be read"),
        open_weights(folder, read_manifest(folder)),
    ):
        pass


def test_a_lost_file_is_named(folder):
    (folder / "config.json").unlink()
    with pytest.raises(FormatError, match=r"has lost config\.json"):
        verify_files(folder)


def test_a_folder_without_a_manifest_says_what_to_give(tmp_path):
    with pytest.raises(FormatError, match=r"is not a packed model.*Give the folder that `export` wrote"):
        read_manifest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(FormatError, match="looks like a Hugging Face checkpoint: export it first"):
        read_manifest(tmp_path)
    with pytest.raises(FormatError, match="is not a folder"):
        read_manifest(tmp_path / "nowhere")


def reseal(folder):
    """Make every file hash in the manifest fit the files again, as someone who tampers would."""
    body = json.loads((folder / "manifest.json").read_text())
    body.pop("manifest_sha256")
    for name in body["files"]:
        data = (folder / name).read_bytes()
        body["files"][name] = {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(seal(body))


def read_everything(folder, manifest):
    with open_weights(folder, manifest) as weights:
        for name in manifest.tensors:
            weights.read(name, verify=True)


REPLACED = {
    "another dtype": (lambda t: t.update({"model.norm.weight": t["model.norm.weight"].half()}), "is float16 where"),
    "another shape": (lambda t: t.update({"model.norm.weight": t["model.norm.weight"][:7]}), r"has shape \[7\] where"),
    "other bytes": (lambda t: t["model.norm.weight"].add_(1), "has other bytes"),
    "a tensor too many": (lambda t: t.update(extra=t["model.norm.weight"] + 1), "disagree about 'extra'"),
    "a tensor too few": (lambda t: t.pop("model.norm.weight"), r"disagree about 'model\.norm\.weight'"),
}


@pytest.mark.parametrize(("change", "message"), REPLACED.values(), ids=REPLACED.keys())
def test_tensors_must_be_those_of_the_manifest_even_when_the_file_hash_fits(folder, change, message):
    tensors = load_file(folder / "weights.safetensors")
    change(tensors)
    save_file(tensors, folder / "weights.safetensors")
    reseal(folder)
    manifest = verify_files(folder)
    with pytest.raises(FormatError, match=message):
        read_everything(folder, manifest)


@pytest.mark.parametrize(
    "name",
    [
        "other.jinja",
        "chat_template.json",
        "added_tokens.json",
        "adapter_config.json",
        "tokenizer.model",
    ],
)
def test_a_file_that_programs_would_read_and_nobody_lists_is_refused(name, folder):
    for read in (read_manifest, verify_files):
        read(folder)
    (folder / name).write_text("{}")
    for read in (read_manifest, verify_files):
        with pytest.raises(FormatError, match=rf"holds {re.escape(name)}, which manifest\.json does not list"):
            read(folder)


def test_notes_pictures_and_hidden_files_may_lie_beside(folder):
    for name in ("NOTES.md", "loss.png", ".gitattributes", "results.json"):
        (folder / name).write_text("{}")
    verify_files(folder)
