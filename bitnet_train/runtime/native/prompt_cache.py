"""Keys and values of a prompt in a file, so that a long one is computed once and continued many times.

One safetensors file: `token_ids` int32 [L], `keys` and `values` float32 [layers, kv_heads, L, head_dim], and in its
metadata the hash of the manifest of the model that computed them, and a seal: the hash of that and of all the numbers.
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
_NAMES = ("keys", "token_ids", "values")


@dataclass(frozen=True)
class CachedPrompt:
    """Token ids of a prompt, and what attention kept of them."""

    token_ids: list[int]
    keys: np.ndarray
    values: np.ndarray


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
        cached = read_prompt(self.path, self.architecture, self.model_sha256)
        if common_length(cached.token_ids, prompt) > remembered.shared(prompt):
            remembered.replace(cached.token_ids, cached.keys, cached.values)

    def keep(self, remembered: Remembered, prompt: list[int]) -> None:
        """Write the keys and values of a prompt that is remembered, unless the file holds them."""
        if _is_there(self.path) and self._holds(prompt):
            return
        keys, values = remembered.beginning(len(prompt))
        write_prompt(self.path, CachedPrompt(prompt[: keys.shape[2]], keys, values), self.model_sha256)

    def _holds(self, prompt: list[int]) -> bool:
        return read_prompt(self.path, self.architecture, self.model_sha256).token_ids[: len(prompt)] == prompt


def read_prompt(path: Path, model: Architecture, model_sha256: str) -> CachedPrompt:
    """Read a cached prompt of this very model.

    Raises
    ------
    FormatError
        When the file is damaged, is no prompt cache, or belongs to another model.
    """
    with TensorFile(path) as file:
        if _MODEL_KEY not in file.metadata or tuple(sorted(file.tensors)) != _NAMES:
            raise _is_none(path)
        if file.metadata[_MODEL_KEY] != model_sha256:
            raise FormatError(
                f"{path} belongs to another model: it was computed by the one with manifest "
                f"{file.metadata[_MODEL_KEY][:12]}, and this is {model_sha256[:12]}. Delete it, or name another file "
                "(`generate.prompt_cache`)."
            )
        _check_shapes(file, path, model)
        token_ids = file.bytes_of("token_ids").view("<i4").tolist()
        if not all(0 <= token_id < model.vocab for token_id in token_ids):
            raise FormatError(f"{path} has token ids that this model does not know. Delete it.")
        cached = CachedPrompt(token_ids, file.float32("keys"), file.float32("values"))
        if file.metadata.get(_SEAL_KEY) != _seal(cached, model_sha256):
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
    metadata = {_MODEL_KEY: model_sha256, _SEAL_KEY: _seal(prompt, model_sha256)}
    with whole_file(path) as draft:
        save_arrays(_arrays(prompt), draft, metadata)


def _arrays(prompt: CachedPrompt) -> dict[str, np.ndarray]:
    return {
        "keys": np.ascontiguousarray(prompt.keys, np.float32),
        "values": np.ascontiguousarray(prompt.values, np.float32),
        "token_ids": np.asarray(prompt.token_ids, np.int32),
    }


def _seal(prompt: CachedPrompt, model_sha256: str) -> str:
    digest = hashlib.sha256(model_sha256.encode())
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
    num_tokens = file.tensors["token_ids"].shape
    expected = (model.layers, model.kv_heads, *num_tokens, model.head_dim)
    wrong = next((name for name in ("keys", "values") if file.tensors[name].shape != expected), None)
    dtypes = {name: stored.dtype for name, stored in file.tensors.items()}
    if wrong or len(num_tokens) != 1 or dtypes != {"keys": "float32", "values": "float32", "token_ids": "int32"}:
        raise FormatError(f"{path}: {wrong or 'token_ids'} has not the shape and dtype of this model. Delete it.")
