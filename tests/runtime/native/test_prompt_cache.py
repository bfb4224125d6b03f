from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

from bitnet_train.errors import ConfigError, DiskError, FormatError
from bitnet_train.runtime.native.architecture import Architecture, Layer, Sizes
from bitnet_train.runtime.native.families import FAMILIES
from bitnet_train.runtime.native.prompt_cache import CachedPrompt, PromptCache, read_prompt, write_prompt

SIZES = Sizes(hidden=8, ff=16, layers=2, heads=6, kv_heads=3, head_dim=2, vocab=50, max_positions=64)
MODEL = Architecture(FAMILIES["LlamaForCausalLM"], SIZES, SIZES.max_positions, (), (Layer(),), 1e-6, "silu", 2**-0.5)
SHA = "a" * 64
RANDOM = np.random.default_rng(0)


@pytest.fixture
def cached():
    shape = (2, 3, 5, 2)
    keys, values = (RANDOM.standard_normal(shape).astype(np.float32) for _ in range(2))
    return CachedPrompt([1, 2, 3, 49, 0], keys, values)


def test_what_is_written_is_read(cached, tmp_path):
    write_prompt(tmp_path / "sub" / "cache", cached, SHA)
    read = read_prompt(tmp_path / "sub" / "cache", MODEL, SHA)
    assert read.token_ids == cached.token_ids
    assert np.array_equal(read.keys, cached.keys)
    assert np.array_equal(read.values, cached.values)


def test_another_model_is_refused_with_the_reason(cached, tmp_path):
    write_prompt(tmp_path / "cache", cached, SHA)
    with pytest.raises(
        FormatError, match=r"manifest aaaaaaaaaaaa, and this is bbbbbbbbbbbb\. Delete it, or name another"
    ):
        read_prompt(tmp_path / "cache", MODEL, "b" * 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(keys=t["keys"][:1]), "keys has not the shape"),
        (lambda t: t.update(values=t["values"][..., :1]), "values has not the shape"),
        (lambda t: t.update(values=t["values"].astype(np.float16)), "has not the shape and dtype"),
        (lambda t: t.update(token_ids=t["token_ids"][:4]), "keys has not the shape"),
        (lambda t: t.update(token_ids=t["token_ids"][None]), "has not the shape"),
        (lambda t: t.update(token_ids=np.full(5, 50, np.int32)), "token ids that this model does not know"),
        (lambda t: t.update(token_ids=np.full(5, -1, np.int32)), "token ids that this model does not know"),
        (lambda t: t.update(more=t["keys"]), "is not a prompt cache"),
        (lambda t: t.pop("keys"), "is not a prompt cache"),
    ],
)
def test_a_file_of_another_shape_is_refused(cached, tmp_path, change, message):
    path = tmp_path / "cache"
    write_prompt(path, cached, SHA)
    tensors = dict(load_file(path))
    change(tensors)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(tensors, path, metadata={"bitnet_train.manifest_sha256": SHA})
    with pytest.raises(FormatError, match=message):
        read_prompt(path, MODEL, SHA)


def test_a_weights_file_is_no_prompt_cache(tmp_path):
    save_file({"a": np.zeros(2)}, tmp_path / "file")
    with pytest.raises(FormatError, match="is not a prompt cache"):
        read_prompt(tmp_path / "file", MODEL, SHA)


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(cached, tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(DiskError, match=r"taken.cache cannot be written: File exists"):
        write_prompt(tmp_path / "taken" / "cache", cached, SHA)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_no_flipped_bit_gives_other_numbers(cached, tmp_path):
    path = tmp_path / "cache"
    write_prompt(path, cached, SHA)
    content, refused = path.read_bytes(), 0
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            read = read_prompt(path, MODEL, SHA)
        except FormatError:
            refused += 1
        else:
            assert read.token_ids == cached.token_ids
            assert read.keys.tobytes() == cached.keys.tobytes()
            assert read.values.tobytes() == cached.values.tobytes()
    assert refused > 0.98 * len(content), "all but blanks of the header"


def test_a_file_of_before_there_was_a_seal_is_refused_with_the_way_out(cached, tmp_path):
    path = tmp_path / "cache"
    write_prompt(path, cached, SHA)
    save_file(load_file(path), path, metadata={"bitnet_train.manifest_sha256": SHA})
    with pytest.raises(FormatError, match=r"older than the seal of prompt caches\. Delete it\."):
        read_prompt(path, MODEL, SHA)


def link(place):
    target = place.with_name("target")
    write_prompt(target, CachedPrompt([1], np.zeros((2, 3, 1, 2)), np.zeros((2, 3, 1, 2))), SHA)
    place.symlink_to(target)


PLACES = {
    "a folder": Path.mkdir,
    "a link": link,
    "a link to nothing": lambda place: place.symlink_to(place.with_name("nowhere")),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_what_is_no_plain_file_is_refused_before_any_work_and_stays(cached, tmp_path, make):
    place = tmp_path / "place"
    make(place)
    before = place.lstat()
    for call in (lambda: PromptCache(place, MODEL, SHA), lambda: write_prompt(place, cached, SHA)):
        with pytest.raises(ConfigError, match=r"prompt_cache=.*place` is a .*only a file that is a prompt cache"):
            call()
    assert place.lstat() == before


def test_a_device_is_refused_where_nothing_would_be_written_yet():
    with pytest.raises(ConfigError, match="is a device"):
        PromptCache(Path("/dev/null"), MODEL, SHA)


@pytest.mark.parametrize("content", [b"", b"my diary", save({"keys": np.zeros(2)})])
def test_a_file_of_another_kind_is_never_replaced(cached, tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="file"):
        write_prompt(path, cached, SHA)
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
