"""`scripts/corpus/split.py`: what is held out depends on the documents alone."""

from __future__ import annotations

import bz2
import json
from pathlib import Path
from xml.sax.saxutils import escape

from scripts.corpus.split import documents, main, split

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


def test_a_share_of_what_only_trains_is_held_out_where_it_is_asked_for(tmp_path: Path) -> None:
    more = [f"another {number}" for number in range(400)]
    train, held_out = split(DOCUMENTS, 0.1, also=more, also_held_out=0.3)
    assert sorted(train + held_out) == sorted([*DOCUMENTS, *more])
    assert 85 <= len({*held_out} & {*more}) <= 155  # binomial, 120 +- 9
    assert {*held_out} & {*DOCUMENTS} == {*split(DOCUMENTS, 0.1)[1]}
    (first := tmp_path / "first.txt").write_text("\n".join(DOCUMENTS))
    (second := tmp_path / "second.txt").write_text("\n".join(more))
    main([str(tmp_path), str(first), "--also", str(second), "--also-held-out", "0.3"])
    rows = [json.loads(line)["text"] for line in (tmp_path / "heldout.jsonl").read_text().splitlines()]
    assert rows == held_out


def test_no_more_is_taken_of_what_only_trains_than_is_asked_for(tmp_path: Path) -> None:
    (first := tmp_path / "first.txt").write_text("a document of the first file\n")
    (more := tmp_path / "more.txt").write_text("\n".join(DOCUMENTS))
    taken = []
    for characters in (500, 1000):
        main([str(tmp_path), str(first), "--held-out", "0", "--also", str(more), "--also-characters", str(characters)])
        lines = (tmp_path / "train.txt").read_text().split("\n\n")
        taken.append({line.strip() for line in lines} - {"a document of the first file"})
        assert characters - 12 < sum(map(len, taken[-1])) <= characters  # the longest has 12
    assert taken[0] < taken[1] < set(DOCUMENTS)


def test_another_edition_of_a_document_does_not_train() -> None:
    known = " ".join(f"word{number}" for number in range(100))
    edition, other = f"Foreword. {known} And more.", " ".join(f"other{number}" for number in range(100))
    quoting = f"{other} {' '.join(known.split()[:12])} {other}"
    for share in (0.0, 1.0):  # on whichever side it is
        train, out = split([known], share, also=[edition, other, quoting])
        assert {*train, *out} == {known, other, quoting}


def test_a_dump_of_a_wiki_is_read_as_its_readers_read_it(tmp_path: Path) -> None:
    markup = """{{Infobox|name=x}}
'''Ada''' (born [[1815]]) was an [[English people|English]] {{lang|fr|x}}mathematician.<ref>{{cite|a [[b]]}}</ref>
[[File:Ada.jpg|thumb|A picture of [[Ada]]]]
== Life ==
{| class="wikitable"
| cell
|}
She wrote &amp; thought&nbsp;much.
== See also ==
* [[Babbage]]
"""
    pages = (("Ada", "0", markup), ("Talk:Ada", "1", "talk"), ("Old", "0", "#REDIRECT [[Ada]]"))
    body = "".join(
        f"<page><title>{title}</title><ns>{space}</ns><revision><text>{escape(text)}</text></revision></page>"
        for title, space, text in pages
    )
    path = tmp_path / "wiki.xml-p1p3.bz2"
    path.write_bytes(bz2.compress(f'<mediawiki xmlns="http://x/export-0.10/">{body}</mediawiki>'.encode()))
    (text,) = documents(path)
    assert text == "Ada (born 1815) was an English mathematician.\nLife\nShe wrote & thought\xa0much."


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


def test_a_web_page_is_read_as_its_readers_read_it_and_not_in_another_language(tmp_path: Path) -> None:
    head = (
        "<html><head><title>t</title><style>p { color: red }</style></head><body><h1>The <i>Analytical</i> Engine</h1>"
    )
    english = "<p>It is the\n  design of a <b>machine</b> for\tall that.</p><script>var the = 1;</script><p></p>"
    table = "<ul><li>A mill<br/>and a store</ul><table><tr><td>cell</table>AT&amp;T"
    (page := tmp_path / "page.html").write_text(f"{head}{english}{table}</body></html>")
    lines = ["The Analytical Engine", "It is the design of a machine for all that.", "A mill", "and a store", "AT&T"]
    assert list(documents(page)) == ["\n".join(lines)]
    page.write_text("<p>Elle est la conception d'une machine pour tout cela, et de la mémoire.</p>")
    assert list(documents(page)) == []


def test_each_text_of_a_folder_is_a_document_if_it_is_english(tmp_path: Path) -> None:
    english = "It is the design of a machine\n\nfor all that."
    (tmp_path / "b.txt").write_text(english)
    (tmp_path / "a.txt").write_text("Elle est la conception d'une machine\npour tout cela.")
    (tmp_path / "c.md").write_text("The notes of the reader.")
    assert list(documents(tmp_path)) == [english]
