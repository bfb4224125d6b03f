"""Split documents into training text and held-out text, the same way every time.

    python scripts/split_corpus.py FOLDER wiki_demo.txt c4_demo.jsonl --held-out 0.1

Writes FOLDER/train.txt, one long text, so that no row of tokens is padded, and FOLDER/heldout.jsonl, a row {"text":
document} each. A .jsonl file holds a document in the field "text" of each line, any other file a document a line. The
digest of a document decides where it goes, and in which order: so what is held out is a mixture, and the same document
is never on both sides.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path


def documents(path: Path) -> Iterator[str]:
    """Yield the documents of a file that are not blank."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["text"] if path.suffix == ".jsonl" else line.strip()
            if text.strip():
                yield text


def split(texts: Sequence[str], held_out: float) -> tuple[list[str], list[str]]:
    """Return the documents to train on and those held out, each once, in the order of their digests."""
    digests = {hashlib.sha256(text.encode()).digest(): text for text in texts}
    first = sorted(digests)
    limit = held_out * 2**64
    # the last eight bytes decide the side, so that the order within a side says nothing about it
    sides = [int.from_bytes(digest[-8:], "big") < limit for digest in first]
    train = [digests[digest] for digest, out in zip(first, sides, strict=True) if not out]
    return train, [digests[digest] for digest, out in zip(first, sides, strict=True) if out]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, split, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the documents (0.1)")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    train, held_out = split([text for path in given.files for text in documents(path)], given.held_out)
    (given.folder / "train.txt").write_text("\n\n".join(train) + "\n", encoding="utf-8")
    rows = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in held_out)
    (given.folder / "heldout.jsonl").write_text(rows, encoding="utf-8")
    for name, texts in (("train.txt", train), ("heldout.jsonl", held_out)):
        print(f"{name}: {len(texts)} documents, {sum(map(len, texts)):,} characters")


if __name__ == "__main__":
    main()
