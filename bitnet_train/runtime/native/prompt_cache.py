"""Keys and values of a prompt in a file, so that a long one is computed once and continued many times.

One safetensors file: `token_ids` int32 [L], `keys` and `values` float32 [layers, kv_heads, L, head_dim] or, with a
cache of that type, int8 beside `key_scales` and `value_scales` float32 [layers, kv_heads, L]. In its metadata: the hash
of the manifest of the model that computed them, the type (a file without it is float32: they all were once), and a
seal: the hash of that and of all the numbers. Codes read as floats would be another text, so the type must be equal.
Another model's keys, or a flipped bit, would give other text without any error, so both hashes must be equal; every
shape is checked too. The file is put in place in one step, and only ever in the place of another prompt cache: never of
a device, a folder, a link, or a file of another kind.
"""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.model.saved_tensors import save_arrays
from bitnet_train.runtime.native.architecture import Architecture
from bitnet_train.runtime.native.remembered import Remembered, common_length
from bitnet_train.runtime.native.tensor_file import TensorFile
from bitnet_train.whole import whole_file

_MODEL_KEY, _SEAL_KEY = "bitnet_train.manifest_sha256", "bitnet_train.sha256"
_TYPE_KEY, _FLOAT = "bitnet_train.cache_dtype", "float32"
_NAMES = {
    _FLOAT: ("keys", "token_ids", "values"),
    "int8": ("key_scales", "keys", "token_ids", "value_scales", "values"),
}


@dataclass(frozen=True)
class CachedPrompt:
    """Token ids of a prompt, and what attention kept of them."""

    token_ids: list[int]
    keys: np.ndarray
    values: np.ndarray
    key_scales: np.ndarray | None = None
    value_scales: np.ndarray | None = None

    @property
    def cache_dtype(self) -> str:
        """How keys and values are kept."""
        return _FLOAT if self.key_scales is None else "int8"

    @property
    def stored(self) -> list[np.ndarray]:
        """Keys, values and their scales, as a sequence gives and takes them."""
        scales = (self.key_scales, self.value_scales)
        return [self.keys, self.values, *(array for array in scales if array is not None)]


@dataclass(frozen=True)
class PromptCache:
    """The file that a model with this manifest keeps a prompt in. Raises FormatError as `read_prompt` does.

    Raises ConfigError where something else than a plain file is there.
    """

    path: Path
    architecture: Architecture
    model_sha256: str

    def __post_init__(self) -> None:
        _is_there(self.path)

    def recall(self, remembered: Remembered, prompt: list[int]) -> None:
        """Take keys and values from the file, if there is one and it holds more of this prompt than is remembered."""
        if not _is_there(self.path):
            return
        cached = self._read(remembered)
        if common_length(cached.token_ids, prompt) > remembered.shared(prompt):
            remembered.replace(cached.token_ids, cached.stored)

    def keep(self, remembered: Remembered, prompt: list[int]) -> None:
        """Write the keys and values of a prompt that is remembered, unless the file holds them."""
        if _is_there(self.path) and self._read(remembered).token_ids[: len(prompt)] == prompt:
            return
        stored = remembered.beginning(len(prompt))
        write_prompt(self.path, CachedPrompt(prompt[: stored[0].shape[2]], *stored), self.model_sha256)

    def _read(self, remembered: Remembered) -> CachedPrompt:
        return read_prompt(self.path, self.architecture, self.model_sha256, remembered.sequence.cache_dtype)


def read_prompt(path: Path, model: Architecture, model_sha256: str, cache_dtype: str = _FLOAT) -> CachedPrompt:
    """Read a cached prompt of this very model, with keys and values of this type.

    Raises
    ------
    FormatError
        When the file is damaged, is no prompt cache, or belongs to another model or type.
    """
    with TensorFile(path) as file:
        kept = file.metadata.get(_TYPE_KEY, _FLOAT)
        if _MODEL_KEY not in file.metadata or tuple(sorted(file.tensors)) != _NAMES.get(kept):
            raise _is_none(path)
        if kept != cache_dtype:
            raise FormatError(
                f"{path} has keys and values of type {kept}, and this model keeps them as {cache_dtype} "
                f"(`generate.cache_dtype`). Set it to {kept}, delete the file, or name another "
                "(`generate.prompt_cache`)."
            )
        if file.metadata[_MODEL_KEY] != model_sha256:
            raise FormatError(
                f"{path} belongs to another model: it was computed by the one with manifest "
                f"{file.metadata[_MODEL_KEY][:12]}, and this is {model_sha256[:12]}. Delete it, or name another file "
                "(`generate.prompt_cache`)."
            )
        _check_shapes(file, path, model)
        token_ids = file.bytes_of("token_ids").view("<i4").tolist()
        if not all(0 <= token_id < model.sizes.vocab for token_id in token_ids):
            raise FormatError(f"{path} has token ids that this model does not know. Delete it.")
        scales = {name: file.float32(name) for name in file.tensors if name.endswith("_scales")}
        read = file.float32 if kept == _FLOAT else file.array
        cached = CachedPrompt(token_ids, np.array(read("keys")), np.array(read("values")), **scales)
        if file.metadata.get(_SEAL_KEY) != _seal(cached, model_sha256, file.metadata.get(_TYPE_KEY)):
            raise FormatError(f"{path} is damaged, or older than the seal of prompt caches. Delete it.")
        return cached


def write_prompt(path: Path, prompt: CachedPrompt, model_sha256: str) -> None:
    """Write a cached prompt, in the place of an earlier one at `path`.

    Raises
    ------
    ConfigError, FormatError
        When something else is there: it stays as it is.
    DiskError
        When the disk refuses it.
    """
    if _is_there(path):
        _check_ours(path)
    metadata = {
        _MODEL_KEY: model_sha256,
        _TYPE_KEY: prompt.cache_dtype,
        _SEAL_KEY: _seal(prompt, model_sha256, prompt.cache_dtype),
    }
    with whole_file(path) as draft:
        save_arrays(_arrays(prompt), draft, metadata)


def _arrays(prompt: CachedPrompt) -> dict[str, np.ndarray]:
    scales = {"key_scales": prompt.key_scales, "value_scales": prompt.value_scales}
    return {
        "keys": np.ascontiguousarray(prompt.keys, prompt.cache_dtype),
        "values": np.ascontiguousarray(prompt.values, prompt.cache_dtype),
        **{name: np.ascontiguousarray(array, np.float32) for name, array in scales.items() if array is not None},
        "token_ids": np.asarray(prompt.token_ids, np.int32),
    }


def _seal(prompt: CachedPrompt, model_sha256: str, told: str | None) -> str:
    """Return the hash of all that a file says; `told` is the type in its metadata, None where there is none."""
    digest = hashlib.sha256(f"{model_sha256}{'' if told is None else f' {told}'}".encode())
    for name, array in _arrays(prompt).items():
        digest.update(f"\n{name} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _is_there(path: Path) -> bool:
    """Whether there is a plain file; ConfigError for anything else that has this name, a link to a file too."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a device"
        raise ConfigError(
            f"`generate.prompt_cache={path}` is {kind}, and only a file that is a prompt cache is ever replaced. Name "
            "a file that is not there yet, or an earlier prompt cache."
        )
    return True


def _check_ours(path: Path) -> None:
    with TensorFile(path) as file:
        if _MODEL_KEY not in file.metadata:
            raise _is_none(path)


def _is_none(path: Path) -> FormatError:
    return FormatError(f"{path} is not a prompt cache. Name another file (`generate.prompt_cache`).")


def _check_shapes(file: TensorFile, path: Path, model: Architecture) -> None:
    num_tokens, kept = file.tensors["token_ids"].shape, file.metadata.get(_TYPE_KEY, _FLOAT)
    rows = (model.sizes.layers, model.sizes.kv_heads, *num_tokens)
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        name: (rows, _FLOAT) if name.endswith("_scales") else ((*rows, model.sizes.head_dim), kept)
        for name in _NAMES[kept]
    }
    expected["token_ids"] = (num_tokens, "int32")
    found = {name: (stored.shape, stored.dtype) for name, stored in file.tensors.items()}
    wrong = next((name for name, (shape, _) in expected.items() if found[name][0] != shape), None)
    if wrong or len(num_tokens) != 1 or found != expected:
        raise FormatError(f"{path}: {wrong or 'token_ids'} has not the shape and dtype of this model. Delete it.")
