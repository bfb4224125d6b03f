"""Which files a path stands for, and which of them are trained on.

A file named outright is trained on, whatever its name. A folder (searched recursively) or a glob is looked through:

    left out     what describes the folder (README, LICENSE, dataset_info.json ...), hidden folders, other formats;
                 Markdown and programs beside files of rows
    validation   named so, or in a folder named so: validation, valid, val, dev, heldout
    test         likewise: test, testing, eval, evaluation. Left out: a figure on rows trained on is worth nothing
    train        everything else

The words are those of `datasets` (its "automatic splits"), between any of `- . _`, space and digits; `heldout` is ours.
Unlike there a file without such a word is training text beside a `test.jsonl`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bitnet_train.errors import DataError
from bitnet_train.train.data.file_formats import DOCUMENTATION, is_readable, is_text, known_suffixes, suffix
from bitnet_train.word_as_path import is_file, is_folder, path_of

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "heldout", "holdout"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF_WORD = {word: split for split, words in _SPLITS.items() for word in words}
_BETWEEN = re.compile(r"[-._ 0-9]+")
_ABOUT = {"readme", "license", "licence", "notice", "copying", "changelog", "citation", "contributing"}
_ABOUT_FILES = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}  # of `datasets`

ABOUT, OTHER, TEST, BESIDE = "describes the folder", "no data format", "test split", "text beside rows"


@dataclass(frozen=True)
class FoundFiles:
    """The files of one path, sorted, and those left out with the reason. `root` is what names are shorter without."""

    root: Path
    train: list[Path]
    validation: list[Path] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)

    def named(self, files: Iterable[Path]) -> list[str]:
        """Return files as people should read them: as below `root`."""
        return [file.relative_to(self.root).as_posix() if file != self.root else file.name for file in files]

    def test(self) -> list[Path]:
        """The files of the test split."""
        return [file for file, reason in self.left_out.items() if reason == TEST]


def find_files(path: str, key: str = "data.path") -> FoundFiles:
    """Return the files of a path, folder or glob.

    Raises DataError naming `key` when nothing matches, a file that was named cannot be read, or a folder holds
    no file to train on.
    """
    given = path_of(path)
    if is_folder(given):
        return _in_folder(given, key)
    if is_file(given):
        _check_readable([given], key)
        return FoundFiles(given.parent, [given])
    root = _fixed_part(given)
    files = sorted(file for file in root.glob(str(given.relative_to(root))) if file.is_file())
    _check_readable(files, key)
    found = _by_split(root, files, {})
    if files and not found.train:  # such as test-*.parquet: asked for by name
        found = FoundFiles(root, files)
    return _checked(found, path, key)


def held_out_files(path: str) -> FoundFiles:
    """Return as `train` the files that `data.validation_path` stands for: those of a split held out, else all."""
    given = path_of(path)
    if not is_folder(given):
        return find_files(path, "data.validation_path")
    found = _sorted_out(given)
    return _checked(FoundFiles(given, found.validation or found.test() or found.train), path, "data.validation_path")


def _in_folder(folder: Path, key: str) -> FoundFiles:
    return _checked(_sorted_out(folder), str(folder), key)


def _sorted_out(folder: Path) -> FoundFiles:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not _is_hidden(file, folder))
    left_out = {file: ABOUT for file in files if _is_about(file)}
    left_out |= {file: OTHER for file in files if file not in left_out and not is_readable(file)}
    data = [file for file in files if file not in left_out]
    if not all(map(is_text, data)):
        left_out |= {file: BESIDE for file in data if suffix(file) in DOCUMENTATION}
    return _by_split(folder, [file for file in data if file not in left_out], left_out)


def _by_split(root: Path, files: list[Path], left_out: dict[Path, str]) -> FoundFiles:
    splits = {file: _split_of(file.relative_to(root)) for file in files}
    test = {file: TEST for file in files if splits[file] == "test"}
    train, validation = ([f for f in files if splits[f] == split] for split in ("train", "validation"))
    return FoundFiles(root, train, validation, left_out | test)


def _split_of(file: Path) -> str:
    """Return the split that the name says, else the nearest folder's, else train."""
    names = [*file.parts[:-1]] if suffix(file) in DOCUMENTATION else [*file.parts]
    for name in reversed(names):
        words = _BETWEEN.split(name.lower().replace("held_out", "heldout").replace("held-out", "heldout"))
        said = [_SPLIT_OF_WORD[word] for word in words if word in _SPLIT_OF_WORD]
        if said:
            return said[-1]
    return "train"


def _is_about(file: Path) -> bool:
    name = file.name.lower()
    return name in _ABOUT_FILES or (not _is_rows(file) and bool(_ABOUT & set(_BETWEEN.split(name))))


def _is_rows(file: Path) -> bool:
    return is_readable(file) and not is_text(file)


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _fixed_part(pattern: Path) -> Path:
    """Return the folders before the first that holds a wildcard."""
    fixed = Path(pattern.anchor)
    for part in pattern.parts[len(fixed.parts) : -1]:
        if re.search(r"[*?\[]", part):
            break
        fixed /= part
    return fixed


def _check_readable(files: Iterable[Path], key: str) -> None:
    unknown = [str(file) for file in files if not is_readable(file)]
    if unknown:
        raise DataError(f"`{key}`: cannot read {', '.join(unknown)}. Allowed: {known_suffixes()}.")


def _checked(found: FoundFiles, path: str, key: str) -> FoundFiles:
    if found.train:
        return found
    others = [*found.validation, *found.test()]
    if others:
        raise DataError(
            f"`{key}={path}` holds no file to train on, only a validation or test split: "
            f"{', '.join(found.named(others))}. Name a file outright to train on it all the same."
        )
    raise DataError(f"`{key}={path}` holds no data files. Allowed: {known_suffixes()}.")
