"""Keys and values as int8: the codes of the activation quantiser, files of them, memory, and how they are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from bitnet_train.errors import ConfigError, FormatError, KernelError
from bitnet_train.kernels import _core, float_ops
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import ActivationScheme
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.runtime.native.prompt_cache import CachedPrompt, read_prompt
from tests.fixtures.native_folders import IDS
from tests.kernels.test_float_ops import random


def codes_of(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return quantize_activation(x, ActivationScheme("int8"))


def test_a_sequence_keeps_the_codes_of_the_activation_quantiser(make_folder):
    folder = make_folder()
    kept = {}
    for kind in ("float32", "int8"):
        model = NativeModel.load(folder, num_threads=1, cache_dtype=kind)
        sequence = model.core.new_sequence(model.max_tokens, kind)
        assert sequence.cache_dtype == kind
        model.core.forward([sequence], [np.asarray(IDS, np.int32)], False)
        kept[kind] = sequence.keys_values()
    # The first layer's depend on the tokens alone; later ones on what attention read.
    for floats, codes, scales in zip(kept["float32"], kept["int8"][:2], kept["int8"][2:], strict=True):
        expected, scale = codes_of(torch.from_numpy(floats[0]))
        assert codes.dtype == np.int8
        assert (codes[0] == expected.numpy()).all()
        assert (scales[0] == scale.numpy().reshape(scales[0].shape)).all()


@pytest.fixture(scope="module")
def wide(make_folder) -> Path:
    """A model with a context of several pages."""
    return make_folder("mistral_with_a_wide_window")


@pytest.fixture(scope="module")
def eight(wide) -> NativeModel:
    return NativeModel.load(wide, num_threads=1, cache_dtype="int8")


LONG = np.random.default_rng(4).integers(0, 256, 620).tolist()


def test_pieces_threads_copies_and_batches_change_nothing(wide, eight):
    whole = eight.logits(LONG)
    assert not np.array_equal(whole, NativeModel.load(wide, num_threads=1).logits(LONG))
    assert np.array_equal(NativeModel.load(wide, num_threads=2, cache_dtype="int8").logits(LONG), whole)
    core = eight.core
    sequence = core.new_sequence(640, "int8")
    core.forward([sequence], [np.asarray(LONG[:400], np.int32)], False)
    other = sequence.copy()
    core.forward([other], [np.asarray(LONG[5:90], np.int32)], False)  # writes to a page of its own from here on
    sequence.truncate(300)
    again = core.forward([sequence], [np.asarray(LONG[300:], np.int32)], True)
    assert np.array_equal(again, whole[300:])
    floats = core.new_sequence(640)
    beside = core.forward([floats, other], [np.asarray(LONG[:3], np.int32)] * 2, False)
    alone = core.forward([core.new_sequence(640)], [np.asarray(LONG[:3], np.int32)], False)
    assert np.array_equal(beside[:1], alone), "types side by side in one step"


def test_a_quarter_of_the_memory_and_nearly_the_same_numbers(wide, eight):
    exact = NativeModel.load(wide, num_threads=1)
    sizes = []
    for model in (exact, eight):
        model.generate_ids(LONG[:500], 4, stop_ids=())
        sizes.append(model.memory_bytes()["kv_cache"])
    width = exact.architecture.sizes.head_dim
    assert sizes[1] * 8 * width == sizes[0] * 2 * (width + 4), "codes, and a scale of four bytes a row"
    # This model is random and looks at few tokens, so it makes much of every rounding; numbers that have nothing to do
    # with each other differ by 1.4 of their size.
    logits = exact.logits(LONG)
    assert np.square(eight.logits(LONG) - logits).mean() < 0.1 * np.square(logits).mean()


def test_text_goes_on_from_what_is_remembered_as_from_the_beginning(eight):
    prompt = LONG[:200]
    made = eight.generate_ids(prompt, 12, stop_ids=())
    eight.forget()
    assert eight.generate_ids(prompt, 12, stop_ids=()) == made
    assert eight.generate_ids([*prompt, *made[:3]], 9, stop_ids=()) == made[3:]


def test_a_prompt_cache_has_its_type_and_is_refused_by_another(wide, eight, tmp_path):
    path, floats = tmp_path / "cache", NativeModel.load(wide, num_threads=1)
    made = eight.generate("a prompt", max_new_tokens=8, prompt_cache=path)
    stored = load_file(path)
    assert {name: array.dtype.name for name, array in stored.items()} == {
        **{"keys": "int8", "values": "int8", "key_scales": "float32", "value_scales": "float32"},
        "token_ids": "int32",
    }
    again = NativeModel.load(wide, num_threads=1, cache_dtype="int8")
    assert again.generate("a prompt", max_new_tokens=8, prompt_cache=path).token_ids == made.token_ids
    with pytest.raises(FormatError, match=r"of type int8, and this model keeps them as float32 .*Set it to int8"):
        floats.generate("a prompt", prompt_cache=path)
    floats.generate("a prompt", max_new_tokens=2, prompt_cache=tmp_path / "floats")
    with pytest.raises(FormatError, match="of type float32, and this model keeps them as int8"):
        eight.generate("a prompt", prompt_cache=tmp_path / "floats")


def test_a_flipped_code_or_scale_of_a_prompt_cache_is_found(wide, eight, tmp_path):
    path = tmp_path / "cache"
    eight.generate("a prompt", max_new_tokens=2, prompt_cache=path)
    whole = path.read_bytes()
    architecture, sha = eight.architecture, eight._cache(path).model_sha256
    assert isinstance(read_prompt(path, architecture, sha, "int8"), CachedPrompt)
    for at in range(len(whole) - 1, len(whole) - 400, -37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(FormatError):
            read_prompt(path, architecture, sha, "int8")


def test_a_prompt_cache_from_before_there_were_types_is_float32(wide, tmp_path):
    path, model = tmp_path / "cache", NativeModel.load(wide, num_threads=1)
    model.generate("a prompt", max_new_tokens=2, prompt_cache=path)
    sha = model._cache(path).model_sha256
    kept = read_prompt(path, model.architecture, sha)
    from bitnet_train.runtime.native.prompt_cache import _MODEL_KEY, _SEAL_KEY, _seal

    save_file(load_file(path), path, metadata={_MODEL_KEY: sha, _SEAL_KEY: _seal(kept, sha, None)})
    assert np.array_equal(read_prompt(path, model.architecture, sha).keys, kept.keys)


def test_another_type_is_refused_by_name(wide, eight):
    with pytest.raises(ConfigError, match="`cache_dtype=int4` is out of range: it must be float32 or int8"):
        NativeModel.load(wide, cache_dtype="int4")
    with pytest.raises(ValueError, match="`cache_dtype` is 'int4'"):
        eight.core.new_sequence(9, "int4")
    q = random(1, 1, 8)
    wide = random(1, 1, 516)
    with pytest.raises(KernelError, match="takes heads of up to 512 dimensions, and this model's have 516"):
        float_ops.attention(wide, wide, wide, cache_dtype="int8")
    with pytest.raises(KernelError, match="`cache_dtype` is 'f8'"):
        float_ops.attention(q, q, q, cache_dtype="f8")
    codes = eight.core.new_sequence(9, "int8")
    kept = _core.Sequence.keys_values(codes)
    with pytest.raises(ValueError, match="stored otherwise in this sequence"):
        eight.core.new_sequence(9).load(*kept)
