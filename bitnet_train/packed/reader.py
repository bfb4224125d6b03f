"""Open a packed folder written by anyone: check first, allocate later, and say which file or tensor is wrong.

The `safetensors` library checks a header's length and every offset before it hands out memory. Checked here: that the
folder is a packed one of a schema we know, that no file is missing, short or long, that every byte has the hash that
the manifest states, and that each tensor has the dtype and shape stated. When the hash of `weights.safetensors` is
wrong, the tensors are hashed one by one to find whose bytes changed. Only reading a tensor needs torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from bitnet_train.errors import FormatError
from bitnet_train.formats.narrow_codes import unpack_narrow
from bitnet_train.packed.manifest import LayerEntry, Manifest, TableEntry, TensorEntry, sha256_of
from bitnet_train.packed.names import (
    MANIFEST_NAME,
    WEIGHTS_NAME,
    bias_name,
    codes_name,
    multipliers_name,
    planes_name,
    scale_name,
)
from bitnet_train.packed.stored import StoredLayer, StoredTable
from bitnet_train.word_as_path import is_file, is_folder, link_out

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_MANIFEST_BYTES = 64 << 20  # 70,000 layers; a longer one is not a manifest
_READ_BY_PROGRAMS = re.compile(
    r"(tokenizer|special_tokens|added_tokens|generation|chat_template|adapter|vocab|merges|model|pytorch_model|processor)"
    r".*\.(json|txt|model|safetensors|bin)|.*\.(jinja|model)|additional_chat_templates"
)
_COPY_AGAIN = "Copy the folder again, or export the model again."


def read_manifest(path: str | Path) -> Manifest:
    """Read and check the manifest of the packed folder at `path`; no other file is opened.

    Raises
    ------
    FormatError
        When this is not a packed folder, or the manifest is damaged, unsafe, or of a newer schema.
    """
    folder = Path(path)
    if not is_folder(folder):
        raise FormatError(f"{folder} is not a folder. Give the folder that `export` wrote.")
    manifest_path = folder / MANIFEST_NAME
    if not is_file(manifest_path):
        raise FormatError(f"{folder} is not a packed model: it has no {MANIFEST_NAME}.{_hint(folder)}")
    try:
        if manifest_path.stat().st_size > _LARGEST_MANIFEST_BYTES:
            raise FormatError(f"{manifest_path} is larger than {_LARGEST_MANIFEST_BYTES >> 20} MiB. {_COPY_AGAIN}")
        text = manifest_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{manifest_path} cannot be read: {error}. {_COPY_AGAIN}") from error
    manifest = Manifest.from_json(text)
    _refuse_unlisted(folder, manifest)
    return manifest


def _refuse_unlisted(folder: Path, manifest: Manifest) -> None:
    """Refuse a file that programs would read, such as another chat template, and that no hash vouches for."""
    if (link := link_out(folder)) is not None:
        raise FormatError(f"{link} is a link to a file outside its folder. Those are not followed: copy the file here.")
    for path in sorted(folder.iterdir()):
        if path.name not in (MANIFEST_NAME, *manifest.files) and _READ_BY_PROGRAMS.fullmatch(path.name):
            raise FormatError(
                f"{folder} holds {path.name}, which {MANIFEST_NAME} does not list, so nobody vouches for it, and "
                "programs would use it. Remove it, or export the model again."
            )


def verify_files(path: str | Path) -> Manifest:
    """Check the length and the hash of every file of the packed folder at `path`, and return its manifest.

    Raises
    ------
    FormatError
        Naming the first file that is missing, truncated or changed, and in `weights.safetensors` the tensor.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        file = folder / name
        if (file.is_symlink() and not file.exists()) or not file.is_file():
            raise FormatError(f"{folder} has lost {name}. {_COPY_AGAIN}")
        num_bytes = file.stat().st_size
        if num_bytes != entry.num_bytes:
            change = "truncated" if num_bytes < entry.num_bytes else "longer than it was written"
            raise FormatError(f"{file} is {change}: {num_bytes} bytes instead of {entry.num_bytes}. {_COPY_AGAIN}")
        if hash_file(file) != entry.sha256:
            raise FormatError(f"{file} was changed or damaged{_where(folder, name, manifest)}. {_COPY_AGAIN}")
    return manifest


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def open_weights(path: str | Path, manifest: Manifest) -> Iterator[WeightsReader]:
    """Open `weights.safetensors`; its tensors must be exactly those of the manifest, by name, dtype and shape."""
    file = Path(path) / WEIGHTS_NAME
    try:
        with safe_open(file, framework="pt", device="cpu") as stream:
            reader = WeightsReader(stream, manifest, file)
            reader.check_names()
            yield reader
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{file} cannot be read: {error}. {_COPY_AGAIN}") from error


class WeightsReader:
    """The tensors of an open `weights.safetensors`, each checked against the manifest when it is read."""

    def __init__(self, stream: safe_open, manifest: Manifest, file: Path) -> None:
        self._stream = stream
        self._manifest = manifest
        self._file = file

    def check_names(self) -> None:
        """Raise a FormatError unless the file holds the tensors of the manifest and no others."""
        differing = sorted(set(self._stream.keys()) ^ set(self._manifest.tensors))
        if differing:
            raise FormatError(f"{self._file} and {MANIFEST_NAME} disagree about {differing[0]!r}. {_COPY_AGAIN}")

    def read(self, name: str, *, verify: bool = False) -> Tensor:
        """Return one tensor in its stored dtype, in memory of its own; with `verify` its hash is checked too."""
        tensor = self._stream.get_tensor(name).clone()  # aligned memory of our own, not the mapped file
        problem = tensor_problem(tensor, self._manifest.tensors[name], verify=verify)
        if problem:
            raise FormatError(f"{self._file}: {name} {problem}. {_COPY_AGAIN}")
        return tensor

    def layer(self, entry: LayerEntry) -> StoredLayer:
        """Return what is stored of a packed layer."""
        planes, scale = self.read(planes_name(entry.name)), self.read(scale_name(entry.name))
        return StoredLayer(entry, planes, scale, self.bias(entry))

    def table(self, entry: TableEntry) -> StoredTable:
        """Return what is stored of a table; of a tied pair both have the same codes and scale."""
        scale = self.read(self._manifest.stored_name(scale_name(entry.name)))
        return StoredTable(entry, self.codes(entry), scale, self.bias(entry))

    def codes(self, entry: TableEntry) -> Tensor:
        """Return the codes int8 [V,K] of a table; FormatError where bytes of fewer than 8 bits are not canonical."""
        from torch import from_numpy

        codes = self.read(name := self._manifest.stored_name(codes_name(entry.name)))
        if entry.bits == 8:
            return codes
        multipliers = self.read(self._manifest.stored_name(multipliers_name(entry.name)))
        try:
            return from_numpy(unpack_narrow(codes.numpy(), multipliers.numpy(), entry.num_inputs, entry.bits))
        except FormatError as error:
            raise FormatError(f"{self._file}: {name}: {error}") from error

    def bias(self, entry: LayerEntry | TableEntry) -> Tensor | None:
        """Return the bias of a packed layer or a table in its stored dtype; None where it has none."""
        return self.read(bias_name(entry.name)) if entry.has_bias else None


def tensor_problem(tensor: Tensor, entry: TensorEntry, *, verify: bool) -> str:
    """Return how a tensor differs from its entry in the manifest, or nothing."""
    from bitnet_train.packed.contents import dtype_name
    from bitnet_train.packed.narrow import hashable

    if dtype_name(tensor.dtype) != entry.dtype:
        return f"is {dtype_name(tensor.dtype)} where the manifest says {entry.dtype}"
    if tuple(tensor.shape) != entry.shape:
        return f"has shape {list(tensor.shape)} where the manifest says {list(entry.shape)}"
    if verify and sha256_of(hashable(tensor)) != entry.sha256:
        return "has other bytes than those that were written"
    return ""


def _where(folder: Path, name: str, manifest: Manifest) -> str:
    """Return which tensor of a damaged weights file changed, as far as the file can still be read."""
    if name != WEIGHTS_NAME:
        return ""
    try:
        with open_weights(folder, manifest) as weights:
            for tensor_name in manifest.tensors:
                weights.read(tensor_name, verify=True)
    except FormatError as error:
        return f" ({error})".replace(f" {_COPY_AGAIN}", "")
    return " (in its header: all tensors are whole)"


def _hint(folder: Path) -> str:
    if any(folder.glob("*.safetensors")):
        return " It looks like a Hugging Face checkpoint: export it first, `bitnet-train export`."
    return " Give the folder that `export` wrote."
