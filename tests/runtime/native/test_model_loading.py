"""What opening a folder checks, refuses and tells."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import bitnet_train
from bitnet_train.errors import FormatError
from bitnet_train.packed import export_packed
from bitnet_train.runtime.native.architecture import NotNative
from bitnet_train.runtime.native.model import NativeModel


@pytest.fixture(scope="module")
def folder(make_folder):
    return make_folder()


@pytest.fixture(scope="module")
def native(folder):
    return NativeModel.load(folder, num_threads=1)


def test_loading_checks_every_byte_unless_told_not_to(damaged):
    data = bytearray((damaged / "config.json").read_bytes())
    data[-2:] = b" }"
    (damaged / "config.json").write_bytes(data)
    with pytest.raises(FormatError, match=r"config\.json was changed or damaged"):
        NativeModel.load(damaged)
    NativeModel.load(damaged, verify=False)


def test_a_folder_that_does_not_fit_is_refused_with_the_reason_and_the_way_out(make_folder):
    with pytest.raises(NotNative, match=r"takes float activations .*`bitnet_train\.load` computes it"):
        NativeModel.load(make_folder(activation="none"))


def test_a_folder_without_a_tokenizer_still_takes_ids(make_folder):
    model = NativeModel.load(make_folder(tokenizer=False))
    assert len(model.generate_ids([1, 2], 3, stop_ids=())) == 3
    with pytest.raises(FormatError, match="exported without a tokenizer"):
        model.generate("x")


def test_damaged_planes_are_refused_and_the_layer_named(make_trained, tmp_path):
    export_packed(make_trained("odd"), None, tmp_path / "out", {})
    data = bytearray((tmp_path / "out" / "weights.safetensors").read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    at = json.loads(data[8:start])["model.layers.0.mlp.up_proj.planes"]["data_offsets"][0]
    data[start + at + 7] = 1
    (tmp_path / "out" / "weights.safetensors").write_bytes(data)
    with pytest.raises(FormatError, match=r"model\.layers\.0\.mlp\.up_proj: .*padding bits that are not 0"):
        NativeModel.load(tmp_path / "out", verify=False)


def test_memory_and_kernels_are_told(native):
    assert native.memory_bytes()
    assert all(type(value) is int for value in native.memory_bytes().values())
    assert native.kernels()


@pytest.mark.slow
def test_a_folder_works_from_anywhere_without_torch_or_transformers(folder, native, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    code = (
        "import sys, bitnet_train, json\n"
        "model = bitnet_train.NativeModel.load(sys.argv[1])\n"
        "made = model.generate('hello', max_new_tokens=5, chat=True)\n"
        "print(json.dumps(made.token_ids))\n"
        "print([name for name in ('torch', 'transformers', 'accelerate', 'safetensors.torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(moved)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    token_ids, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert json.loads(token_ids) == native.generate("hello", max_new_tokens=5, chat=True).token_ids


def test_the_public_name_is_there():
    assert bitnet_train.NativeModel is NativeModel
