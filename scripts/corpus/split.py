"""Split documents into training text and held-out text, the same way every time.

    python -m scripts.corpus.split FOLDER wiki_demo.txt c4_demo.jsonl --held-out 0.1 --also alpaca.json gsm8k.jsonl

Writes FOLDER/train.txt, one long text, so that no row of tokens is padded, and FOLDER/heldout.jsonl, a row {"text":
document} each. A .json or .jsonl file holds a document in each row: its field "text", or all its strings; WikiText, one
below each title; a dump of a wiki (*.xml*.bz2), its articles; a web page (*.html) is one, and so is each *.txt of a
folder, if they are English; any other file holds a line each. The digest of a document decides where it goes, and in
which order: so both sides are mixtures, and the same document is never on both. Nor is another edition of it: what
--also repeats of the other files, a tenth of its 8-word runs or more, is left out.

Held out is by default what the first files hold, whatever share of the text they are: two mixtures, and a figure on one
says little about the other. `--also-held-out 0.1` holds out of all files alike, so that both sides are one mixture.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.corpus import web_page
from scripts.corpus.wikitext import articles, is_wikitext


def documents(path: Path) -> Iterator[str]:
    """Yield the documents of a file, or of the files of a folder, that are not blank."""
    if path.is_dir():
        texts = (file.read_text(encoding="utf-8", errors="replace") for file in sorted(path.glob("*.txt")))
        yield from filter(web_page.is_english, texts)
        return
    is_dump = path.suffix == ".bz2" and ".xml" in path.name  # enwiki-latest-pages-articles1.xml-p1p41242.bz2
    texts = _of_dump(path) if is_dump else _of_text(path.suffix, path.read_text(encoding="utf-8"))
    yield from filter(str.strip, texts)


def _of_dump(path: Path) -> Iterable[str]:
    from scripts.corpus import wikipedia  # needs a package that nothing else needs

    return wikipedia.articles(path)


def _of_text(suffix: str, whole: str) -> Iterable[str]:
    if suffix == ".json":
        return [_text(row) for row in json.loads(whole)]
    if suffix == ".jsonl":
        return [_text(json.loads(line)) for line in whole.split("\n") if line.strip()]
    if suffix == ".html":
        return [web_page.text(whole)]
    if is_wikitext(whole):
        return articles(whole)
    return [line.strip() for line in whole.split("\n")]


def split(
    texts: Sequence[str], held_out: float, also: Sequence[str] = (), also_held_out: float = 0.0
) -> tuple[list[str], list[str]]:
    """Return what to train on and what is held out, each document once, in the order of digests.

    `also` only trains, but for the share `also_held_out` of it. A document that is on both lists counts as one of
    `texts`, and what is held out of either is never trained on.
    """
    out = {text for text in texts if _side(text) < held_out * 2**64}
    out |= {text for text in {*also} - {*texts} if _side(text) < also_held_out * 2**64}
    known = {run for text in texts for run in _runs(text)}
    train = ({*texts} | {text for text in also if not _repeats(text, known)}) - out
    return sorted(train, key=_digest), sorted(out, key=_digest)


def _some(texts: Sequence[str], characters: int | None) -> list[str]:
    """Return as many as have these many characters, the same each time."""
    in_order = sorted(texts, key=_side)
    ends = itertools.accumulate(map(len, in_order))
    return [text for text, end in zip(in_order, ends, strict=True) if characters is None or end <= characters]


def _runs(text: str) -> set[tuple[str, ...]]:
    """Every run of 8 words."""
    words = text.lower().split()
    return set(zip(*(words[first:] for first in range(8)), strict=False))


def _repeats(text: str, known: set[tuple[str, ...]]) -> bool:
    runs = _runs(text)
    return len(runs & known) > 0.1 * len(runs)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _side(text: str) -> int:
    """A number below 2**64, from other bytes than those that decide the order."""
    return int.from_bytes(_digest(text)[-8:], "big")


def _text(row: dict[str, Any]) -> str:
    return row["text"] if "text" in row else "\n\n".join(value for value in row.values() if isinstance(value, str))


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, split, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the documents (0.1)")
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="files of which nothing is held out")
    parser.add_argument("--also-held-out", type=float, default=0.0, help="share of --also held out all the same (0)")
    parser.add_argument("--also-characters", type=int, metavar="N", help="take no more than these of --also (all)")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    texts, also = ([text for path in paths for text in documents(path)] for paths in (given.files, given.also))
    train, held_out = split(texts, given.held_out, _some(also, given.also_characters), given.also_held_out)
    (given.folder / "train.txt").write_text("\n\n".join(train) + "\n", encoding="utf-8")
    rows = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in held_out)
    (given.folder / "heldout.jsonl").write_text(rows, encoding="utf-8")
    for name, texts in (("train.txt", train), ("heldout.jsonl", held_out)):
        print(f"{name}: {len(texts)} documents, {sum(map(len, texts)):,} characters")


if __name__ == "__main__":
    main()
