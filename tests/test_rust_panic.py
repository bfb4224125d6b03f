"""A tokenizer.json on which the library of Rust panics is an error for people at every door."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import Tokenizer

from bitnet_train.errors import BitnetTrainError
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.converted import _tokenizer
from bitnet_train.runtime.load import load_tokenizer
from bitnet_train.runtime.native.tokens import read_tokens
from bitnet_train.rust_panic import panics_as_errors

DOORS = {
    "packed": lambda folder: load_pretrained(str(folder)),
    "converted": _tokenizer,
    "runtime": load_tokenizer,
    "native": lambda folder: read_tokens(folder).encode("a"),
}


def spoil(folder):
    """Claim that tokens go on with a longer prefix than any has: merging them indexes before their beginning."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"] |= {
        "continuing_subword_prefix": "x" * 99,
        "vocab": {"a": 0, "b": 1, "ab": 2},
        "merges": [["a", "b"]],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def reseal(folder):
    """Let the hashes of a packed folder fit its changed tokenizer."""
    from bitnet_train.packed.manifest import seal
    from bitnet_train.packed.reader import hash_file

    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    body.pop("manifest_sha256")
    file = folder / "tokenizer.json"
    body["files"]["tokenizer.json"] = {"num_bytes": file.stat().st_size, "sha256": hash_file(file)}
    path.write_text(seal(body))


def test_the_library_panics_past_every_handler_of_exceptions(folder):
    path = spoil(folder)
    with pytest.raises(BaseException, match="out of range") as caught:
        Tokenizer.from_file(str(path))
    assert not isinstance(caught.value, Exception)
    with pytest.raises(ValueError, match="out of range"), panics_as_errors():
        Tokenizer.from_file(str(path))


@pytest.mark.parametrize("door", DOORS)
def test_a_door_says_which_folder_it_was(folder, door):
    spoil(folder)
    reseal(folder)
    with pytest.raises(BitnetTrainError, match="out of range") as caught:
        DOORS[door](folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("kind", ["float", "hf_bitnet"])
def test_a_folder_of_others_is_refused_too(trained_float_folder, hf_bitnet_folder, tmp_path, kind):
    given = {"float": trained_float_folder, "hf_bitnet": hf_bitnet_folder}[kind]
    copy = shutil.copytree(given, tmp_path / "copy")
    spoil(copy)
    with pytest.raises(BitnetTrainError, match="out of range"):
        load_pretrained(str(copy))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), OSError("full")])
def test_everything_else_passes_as_it_is(error):
    with pytest.raises(type(error)) as caught, panics_as_errors():
        raise error
    assert caught.value is error


@pytest.fixture
def trained_float_folder(byte_tokenizer, tmp_path):
    from tests.fixtures.data_examples import make_llama

    make_llama(258).save_pretrained(tmp_path / "float")
    byte_tokenizer.save_pretrained(tmp_path / "float")
    return tmp_path / "float"


@pytest.fixture
def hf_bitnet_folder(tmp_path):
    from scripts.fuzz import folders

    return folders.exported("hf_bitnet", folders.packed_folder(tmp_path / "packed"), tmp_path / "hf_bitnet")
