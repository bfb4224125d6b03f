"""Upload an exported folder to the Hugging Face hub, when the user asks for it by name and only then.

What is uploaded is a copy with more in it: the card gets the figures that were measured, and a picture lies beside it.
The list of files with their hashes, which is checked when the folder is loaded, is made to fit. The folder itself stays
as it is, and the copy, hard links where the disk has them, is gone afterwards.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from huggingface_hub import EvalResult, HfApi

from bitnet_train.disk import writing
from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.exporters.record import files_of, read_record
from bitnet_train.packed.card_data import with_results
from bitnet_train.packed.names import EXPORT_NAME, MANIFEST_NAME
from bitnet_train.packed.reader import read_manifest

CARD_NAME = "README.md"


def check_hub_name(repository: str) -> None:
    """Raise ConfigError unless `repository` is OWNER/NAME; nothing is sent."""
    owner, slash, name = repository.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise ConfigError(f"`export.push_to_hub={repository}` is no repository. Give OWNER/NAME.")


def push_folder(
    folder: Path,
    repository: str,
    *,
    private: bool = True,
    figures: str = "",
    further: Mapping[str, str] | None = None,
    results: Sequence[EvalResult] = (),
) -> str:
    """Create the model repository if it is new, upload every file of `folder` in one commit, and return its address.

    A new repository is `private`; the hub's own settings change one that is there. `figures` is Markdown that the card
    ends with, `results` the same for the hub to read, `further` the texts of further files by name.

    Raises FormatError when the hub cannot be reached or refuses; the folder stays where it is.
    """
    check_hub_name(repository)
    with staged(folder, figures, further or {}, repository.rpartition("/")[2], results) as copy:
        try:
            api = HfApi()
            api.create_repo(repository, repo_type="model", private=private, exist_ok=True)
            return str(api.upload_folder(folder_path=copy, repo_id=repository, repo_type="model"))
        except Exception as error:  # the http library behind huggingface_hub, and its errors, differ between versions
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise FormatError(
                f"{folder} was written, but not uploaded to {repository}: {reason}. Log in with `hf auth login` (or "
                "set HF_TOKEN), and export again."
            ) from error


@contextmanager
def staged(
    folder: Path, figures: str, further: Mapping[str, str], name: str = "", results: Sequence[EvalResult] = ()
) -> Iterator[Path]:
    """Yield a copy of a folder beside it, with the figures in its card and the further files; it is removed after.

    `results` are those of a model called `name`.
    """
    with writing(folder.parent), tempfile.TemporaryDirectory(prefix=f".{folder.name}.hub-", dir=folder.parent) as made:
        copy = Path(made)
        for path in sorted(folder.iterdir()):
            _link(path, copy / path.name)
        card = (folder / CARD_NAME).read_text(encoding="utf-8") if (folder / CARD_NAME).is_file() else ""
        for file, text in {CARD_NAME: with_results(card + figures, name, results), **further}.items():
            (copy / file).unlink(missing_ok=True)  # a link is not written through
            (copy / file).write_text(text, encoding="utf-8")
        _seal(copy)
        yield copy


def _link(path: Path, copy: Path) -> None:
    try:
        os.link(path, copy, follow_symlinks=True)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, copy)


def _seal(folder: Path) -> None:
    """Have the manifest of a packed folder, or the record of an export, state the files that are there."""
    for name in (MANIFEST_NAME, EXPORT_NAME):
        if not (folder / name).is_file():
            continue
        files = {each: entry for each, entry in files_of(folder).items() if each != name}
        if name == MANIFEST_NAME:
            manifest = read_manifest(folder)
            sizes = replace(manifest.sizes, total_bytes=sum(entry.num_bytes for entry in files.values()))
            text = replace(manifest, files=files, sizes=sizes).to_json()
        else:
            text = replace(read_record(folder), files=files).to_json()
        (folder / name).unlink()
        (folder / name).write_text(text, encoding="utf-8")
