"""Read the examples of both splits.

Held out are, in this order of preference: the rows of an explicit validation path or split; the validation files of
a folder; the standard library's own fixed split; else every example whose content hash, read as a fraction of 2^64,
lies below `validation_fraction`. The hash makes the split independent of order and machine, and puts duplicates on the
same side.

Few examples can fall on one side entirely. Then a text corpus gives the last `validation_fraction` of every document,
cut at a line break where one is near, and a chat corpus the examples of smallest hash, at least one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import length_hint
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.progress import track
from bitnet_train.train.data.examples import Document, Example, Row, RowReader, content_digest, named_rows
from bitnet_train.train.data.file_formats import is_text, read_file
from bitnet_train.train.data.files import BESIDE, find_files, held_out_files
from bitnet_train.train.data.row_shape import Kind
from bitnet_train.train.data.self_corpus import self_documents
from bitnet_train.train.data.settings import DataConfig
from bitnet_train.train.data.sources import file_rows, hub_rows, text_rows
from bitnet_train.train.data.stdlib_corpus import stdlib_documents

SPLITS = ("train", "validation")
REPLACED = "`data.validation_path` is given"


@dataclass(frozen=True)
class Corpus:
    """Examples of both splits, all of one kind; `content_sha256` covers both, in order.

    files: names by split ("train", "validation"), and by the reason those that were left out.
    `unused_fields`: rows by the name of a field that was not read; `notes`: what was left out of chats, in words.
    """

    train: list[Example]
    validation: list[Example]
    kind: Kind
    unused_fields: dict[str, int]
    notes: dict[str, int]
    content_sha256: str
    files: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Rows:
    """What a source gives: parts whose rows have one shape each, such as files; `validation` None = to be split."""

    train: Iterable[Iterable[Row]]
    validation: Iterable[Iterable[Row]] | None = None
    files: dict[str, list[str]] = field(default_factory=dict)


def read_corpus(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path,
    teacher: PreTrainedModel | None = None,
) -> Corpus:
    """Read, interpret and split. `tokenizer`, `cache_dir` and `teacher` serve `source=self` only.

    Raises DataError when there is nothing to train on, or a split asked for is empty.
    """
    reader = _reader(None if config.kind == "auto" else config.kind, config)
    rows = _rows(config, tokenizer, cache_dir, teacher)
    train = list(_examples(reader, rows.train, config))
    if not train:
        raise DataError(
            f"`data.source={config.source}` `data.path={config.path}`: no row with content. Nothing to train on."
        )
    if rows.validation is not None:
        validation = list(_examples(reader, rows.validation, config))
    else:
        train, validation = split_examples(train, config.validation_fraction)
    if not validation and (rows.validation is not None or config.validation_fraction > 0):
        raise DataError(
            "The validation split is empty. Give it rows, or set `data.validation_fraction=0` to go without."
        )
    assert reader.kind is not None
    unused, sha256 = dict(sorted(reader.unused_fields.items())), _content_sha256(train, validation)
    return Corpus(train, validation, reader.kind, unused, dict(reader.notes), sha256, rows.files)


def split_examples(examples: list[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """Return (train, validation), order kept; see the module's text for the rule."""
    if fraction == 0:
        return examples, []
    held_out = [_position(example) < fraction for example in examples]
    if not any(held_out) or all(held_out):
        texts = [example for example in examples if isinstance(example, Document)]
        if len(texts) == len(examples):
            return _split_tails(texts, fraction)
        held_out = _smallest(examples, fraction)
    train = [example for example, out in zip(examples, held_out, strict=True) if not out]
    validation = [example for example, out in zip(examples, held_out, strict=True) if out]
    if not train:
        raise DataError(
            f"{len(examples)} example(s) cannot be split into training and validation. Add rows, give validation rows"
            f" of their own (`data.validation_path`), or set `data.validation_fraction=0`.{named_rows(examples)}"
        )
    return train, validation


def _rows(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path,
    teacher: PreTrainedModel | None,
) -> _Rows:
    """Return the rows to train on, and rows to validate on where the source has its own."""
    if config.source == "stdlib":
        train, validation = (text_rows(stdlib_documents(split), "standard library") for split in SPLITS)
        return _Rows([train], [validation])
    if config.source == "files":
        return _of_files(config)
    if config.source == "hub":
        validation = [_hub(config, config.validation_split)] if config.validation_split else None
        return _Rows([_hub(config, config.split)], validation)
    if teacher is None:
        raise ConfigError("`data.source=self` needs the full-precision teacher; it is only available in training.")
    documents = self_documents(teacher, tokenizer, config.self_corpus, cache_dir, _prompts(config))
    return _Rows([text_rows(documents, "self-written")])


def _of_files(config: DataConfig) -> _Rows:
    """Return the rows of `data.path`; `data.validation_path` stands above a split that the path brings along."""
    assert config.path
    found = find_files(config.path)
    train, beside = _of_one_kind(found.train, config)
    own = held_out_files(config.validation_path) if config.validation_path else None
    validation = own.train if own else found.validation
    files = {"train": found.named(train), "validation": (own or found).named(validation)}
    left_out = dict.fromkeys(found.validation if own else [], REPLACED) | found.left_out | dict.fromkeys(beside, BESIDE)
    for file, reason in left_out.items():
        files.setdefault(reason, []).extend(found.named([file]))
    return _Rows(map(read_file, train), map(read_file, validation) if validation else None, files)


def _of_one_kind(files: list[Path], config: DataConfig) -> tuple[list[Path], list[Path]]:
    """Return the files to read, and whole texts beside rows that are chats or instructions, which are left out."""
    rows = [file for file in files if not is_text(file)]
    if not rows or len(rows) == len(files):
        return files, []
    reader = _reader(None if config.kind == "auto" else config.kind, config)
    next(reader.examples(read_file(rows[0])), None)
    return (files, []) if reader.kind == "text" else (rows, [file for file in files if is_text(file)])


def _hub(config: DataConfig, split: str) -> Iterator[Row]:
    assert config.path
    return hub_rows(config.path, config.name, split, streaming=config.max_documents is not None)


def _prompts(config: DataConfig) -> list[str]:
    if not config.path:
        return []
    rows = islice(file_rows(config.path), config.max_documents or config.self_corpus.documents)
    examples = _reader("text", config).examples(rows)
    return [example.text for example in examples if isinstance(example, Document)]


def _reader(kind: Kind | None, config: DataConfig) -> RowReader:
    return RowReader(kind, config.field_names, replace_surrogates=config.lone_surrogates == "replace")


def _examples(reader: RowReader, parts: Iterable[Iterable[Row]], config: DataConfig) -> Iterator[Example]:
    return track((example for part in _limited(parts, config) for example in reader.examples(part)), "reading")


def _limited(parts: Iterable[Iterable[Row]], config: DataConfig) -> Iterator[Iterable[Row]]:
    """Yield the parts until they have given `max_documents` rows together."""
    if config.max_documents is None:
        yield from parts
        return
    left = iter(range(config.max_documents))
    for part in parts:
        if length_hint(left) == 0:
            return
        yield (row for row, _ in zip(part, left, strict=False))


def _position(example: Example) -> float:
    """Return where the content hash falls in [0, 1)."""
    return int.from_bytes(content_digest(example)[:8]) / 2**64


def _smallest(examples: list[Example], fraction: float) -> list[bool]:
    """Mark the examples of smallest hash, at least one; duplicates of a marked one are marked too."""
    positions = [_position(example) for example in examples]
    limit = sorted(positions)[max(1, round(fraction * len(positions))) - 1]
    return [position <= limit for position in positions]


def _split_tails(documents: list[Document], fraction: float) -> tuple[list[Example], list[Example]]:
    """Cut every document in two, at a line break within 200 characters before the cut if there is one."""
    train: list[Example] = []
    validation: list[Example] = []
    for document in documents:
        cut = max(1, round(len(document.text) * (1 - fraction)))
        line_break = document.text.rfind("\n", max(0, cut - 200), cut)
        cut = line_break + 1 if line_break > 0 else cut
        for part, side in ((document.text[:cut], train), (document.text[cut:], validation)):
            if part.strip():
                side.append(Document(part))
    return train, validation


def _content_sha256(train: list[Example], validation: list[Example]) -> str:
    sha = hashlib.sha256(f"{len(train)} {len(validation)}\n".encode())
    for example in (*train, *validation):
        sha.update(content_digest(example))
    return sha.hexdigest()
