"""`scripts/split_corpus.py`: what is held out depends on the documents alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from split_corpus import documents, main, split

DOCUMENTS = [f"document {number}" for number in range(400)]


def test_a_document_is_on_one_side_once_whatever_the_order_of_the_files() -> None:
    train, held_out = split(DOCUMENTS, 0.1)
    assert sorted(train + held_out) == sorted(DOCUMENTS)
    assert split([*reversed(DOCUMENTS), *DOCUMENTS], 0.1) == (train, held_out)
    assert 20 <= len(held_out) <= 60  # binomial, 40 +- 6


def test_a_larger_share_holds_out_more_of_the_same() -> None:
    assert set(split(DOCUMENTS, 0.1)[1]) < set(split(DOCUMENTS, 0.3)[1])
    assert split(DOCUMENTS, 0.0)[1] == []


def test_what_only_trains_is_never_held_out_unless_it_is_elsewhere_too() -> None:
    held_out = split(DOCUMENTS, 0.1)[1]
    train, out = split(DOCUMENTS, 0.1, also=["more", held_out[0]])
    assert out == held_out
    assert set(train) == {*DOCUMENTS, "more"} - {*held_out}


def test_a_row_is_its_text_or_its_strings(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([{"text": "a", "id": "x"}, {"q": "b", "n": 1, "a": "c"}]))
    assert list(documents(tmp_path / "rows.json")) == ["a", "b\n\nc"]


def test_wikitext_is_joined_up_into_its_articles(tmp_path: Path) -> None:
    (tmp_path / "valid.txt").write_text(
        ' \n = The Title = \n \n It has 1 @,@ 234 <unk> ( or so ) , isn \'t " one " : well @-@ known .\n'
        " \n = = A heading = = \n \n It 's the <unk> end .\n \n = Second = \n \n Text = text .\n",
        encoding="utf-8",
    )
    assert list(documents(tmp_path / "valid.txt")) == [
        "It has 1,234 (or so), isn't \"one\": well-known.\nIt's the end.",
        "Text = text.",
    ]


def test_lines_and_jsonl_become_one_text_and_rows(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("one\n\n  two  \n", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "três\nlinhas"}) + "\n", encoding="utf-8")
    files, expected = [str(tmp_path / name) for name in ("lines.txt", "rows.jsonl")], ["one", "três\nlinhas", "two"]
    for share, train, held_out in (("0", expected, []), ("1", [""], expected)):
        main([str(tmp_path / share), *files, "--held-out", share])
        text = (tmp_path / share / "train.txt").read_text(encoding="utf-8")
        rows = (tmp_path / share / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
        assert sorted(text.removesuffix("\n").split("\n\n")) == train
        assert sorted(json.loads(row)["text"] for row in rows) == held_out
