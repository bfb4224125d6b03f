"""`scripts/frontier` and its page, without a model: what beats what, what is refused, and what the page says of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.evaluate.windows import windows
from bitnet_train.importers.load import tiny_folder
from scripts.frontier.__main__ import arguments, main
from scripts.frontier.curve import Place, beats, frontier
from scripts.frontier.quantised import TYPES
from scripts.frontier.result import LLAMA_CPP, ORIGINAL, OURS, Result
from scripts.frontier.texts import cut, read_text
from scripts.tables import frontier as page

WORDS = ["--original=model.gguf", "--work=work", "--text=code=code.txt"]
TEXTS = {"code": {"windows": 2, "window_tokens": 32, "tokens": 62, "sha256": "a" * 64}}
SOURCE = {"name": "Small.Q4_1.gguf", "parameters": 1_000_000}
RUN = {
    "date": "2026-11-30 03:00",
    "commit": "abc",
    "cpu": "A CPU (avx2)",
    "llama_cpp": {"version": "1", "build": "native"},
    "importance": {"tokens": 500, "text": "other.txt"},
}


def size(num_bytes: int) -> dict:
    return {
        "sha256": f"{num_bytes:064x}",
        "file_bytes": num_bytes,
        "bits_per_weight": num_bytes * 8e-6,
        "stored_as": {"Q4_0": num_bytes},
    }


def quality(ratio: float) -> dict:
    return {"code": {"perplexity": 10 * ratio, "ratio": ratio, "kl_nats": ratio - 1, "top1_agreement": 1 / ratio}}


@pytest.fixture
def result(tmp_path: Path) -> Result:
    found = Result(tmp_path / "result.json", {**SOURCE, **size(100)}, TEXTS, RUN)
    found.state_original(LLAMA_CPP, {"code": 10.0})
    for label, num_bytes, ratio in (("Q8_0", 160, 1.0), ("Q4_0", 80, 1.1), ("Q2_K", 90, 1.5), ("IQ1_S", 60, 3.0)):
        found.put(label, LLAMA_CPP, size(num_bytes), quality(ratio))
    return found


def facts(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "result.json").read_text())


def test_one_beats_another_where_it_is_no_worse_in_both_and_better_in_one() -> None:
    middle = Place("a", OURS, 50, 2.0)
    assert beats(middle, Place("b", OURS, 50, 2.1))
    assert beats(middle, Place("b", OURS, 51, 2.0))
    assert not beats(middle, Place("b", OURS, 50, 2.0))
    assert not beats(middle, Place("b", OURS, 49, 2.1))
    assert not beats(middle, Place("b", OURS, 51, 1.9))


def test_the_frontier_is_what_none_of_the_others_beats() -> None:
    drawn = torch.randint(0, 12, (60, 2), generator=torch.Generator().manual_seed(0)).tolist()
    several = [Place(str(number), OURS, size, float(ratio)) for number, (size, ratio) in enumerate(drawn)]
    best = frontier(several)
    assert best
    assert [place.num_bytes for place in best] == sorted(place.num_bytes for place in best)
    assert [place.ratio for place in best] == sorted((place.ratio for place in best), reverse=True)
    assert not any(beats(one, other) for one in best for other in best)
    assert all(any(beats(one, place) for one in best) for place in several if place not in best)


def test_a_text_is_the_windows_that_evaluate_cuts(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder())
    (path := tmp_path / "rows.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps({"text": f"line {n} of this"}) + "\n" for n in range(30)).encode())
    )
    text = read_text(path, "--text code")
    assert text.startswith("line 0 of this\n\nline 1")
    found, expected = cut("code", text, tokenizer, window_tokens=16, num_windows=3), windows(text, tokenizer, 16)
    for name, rows in expected.items():
        assert torch.equal(found.rows[name], rows[:3])
    assert found.facts()["tokens"] == 3 * 15
    other = cut("code", text[1:], tokenizer, window_tokens=16, num_windows=3)
    assert other.facts()["sha256"] != found.facts()["sha256"]
    with pytest.raises(
        DataError, match=r"`--text code=...` does not fill 300 windows of 16 tokens. Give a longer text"
    ):
        cut("code", text, tokenizer, window_tokens=16, num_windows=300)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.jsonl", b"{}\n", r"line 1 has no text. Every line is"),
        ("rows.jsonl", b'{"text": "a"}\nno\n', r"line 2 is no JSON"),
        ("text.txt", b"\xff\xfe", r"cannot be read as UTF-8 text"),
        ("text.txt.gz", b"plain", r"cannot be read as UTF-8 text"),
    ],
)
def test_a_file_that_holds_no_text_is_refused_by_name(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as raised:
        read_text(tmp_path / name, "--text code")
    assert name in str(raised.value)
    assert "`--text code`" in str(raised.value)


def test_types_are_all_or_none_beside_a_folder_or_those_that_are_named() -> None:
    assert arguments(WORDS).types == list(TYPES)
    assert arguments([*WORDS, "--add=mine=folder"]).types == []
    assert arguments([*WORDS, "--add=mine=folder", "--types", "Q4_0"]).types == ["Q4_0"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "`--original`: there is no file model.gguf"),
        (["--original=original", "--types", "Q4_0"], "`--importance` is missing"),
        (["--original=original", "--add=a=b", "--windows=0"], "`--windows=0`: give 1 or more"),
        (["--original=original", "--add=a=b", "--add=a=c"], "`--add` has a name twice"),
        (["--original=original", "--add=a=b"], "`--text code`: there is no file code.txt"),
        (["--original=original", "--add=a=b", "--window=1"], "`--window=1`: give 2 or more"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "original").touch()
    with pytest.raises(SystemExit) as raised:
        main([*WORDS, *words])
    assert message in str(raised.value)


def test_points_are_added_to_a_file_of_the_same_tokens(result: Result, tmp_path: Path) -> None:
    again = Result(tmp_path / "result.json", {**SOURCE, **size(100)}, TEXTS, {**RUN, "date": "later"})
    again.time("Q4_0", {"tokens_per_s": 5.0, "threads": 2, "others_cores": 0.0})
    again.put("mine", OURS, {**size(30), "recipe": "r"}, quality(4.0))
    found = facts(tmp_path)
    assert list(found["points"]) == ["Q8_0", "Q4_0", "Q2_K", "IQ1_S", "mine"]
    assert (found["points"]["Q4_0"]["run"], found["points"]["Q4_0"]["decode"]["run"]) == (0, 1)
    assert found["original"]["perplexity"] == {LLAMA_CPP: {"code": 10.0}}
    again.put("Q4_0", LLAMA_CPP, size(81), quality(1.1))
    assert "decode" not in facts(tmp_path)["points"]["Q4_0"]  # other bytes
    again.refuse("Q4_0", "no")
    assert "Q4_0" not in again
    again.time(ORIGINAL, {"tokens_per_s": 6.0, "threads": 2, "others_cores": 0.5})
    assert facts(tmp_path)["original"]["decode"]["tokens_per_s"] == 6.0


def test_a_text_is_added_to_points_of_the_same_bytes(result: Result, tmp_path: Path) -> None:
    result.time("Q4_0", {"tokens_per_s": 5.0, "threads": 2, "others_cores": 0.0})
    again = Result(tmp_path / "result.json", {**SOURCE, **size(100)}, {"more": TEXTS["code"]}, RUN)
    assert again.states(LLAMA_CPP, "code")
    assert not again.states(LLAMA_CPP, "more")
    again.state_original(LLAMA_CPP, {"more": 20.0})
    again.put("Q4_0", LLAMA_CPP, size(80), {"more": quality(1.2)["code"]})
    again.put("Q2_K", LLAMA_CPP, size(91), {"more": quality(1.6)["code"]})
    found = facts(tmp_path)
    assert list(found["texts"]) == ["code", "more"]
    assert found["original"]["perplexity"] == {LLAMA_CPP: {"code": 10.0, "more": 20.0}}
    assert {text: each["ratio"] for text, each in found["points"]["Q4_0"]["quality"].items()} == {
        "code": 1.1,
        "more": 1.2,
    }
    assert found["points"]["Q4_0"]["decode"]["tokens_per_s"] == 5.0
    assert list(found["points"]["Q2_K"]["quality"]) == ["more"]
    assert {place.label for place in page.places(found, "code")} == {ORIGINAL, "Q8_0", "Q4_0", "IQ1_S"}
    assert "| IQ1_S | llama.cpp | 0.0 | 0.00 | 3.00 | 2.000 | 33.3 % |  |  |  |" in page.document(found)


@pytest.mark.parametrize(
    ("source", "texts", "message"),
    [
        ({"sha256": "c" * 64}, TEXTS, "holds points of Small.Q4_1.gguf with the hash 000000000000"),
        (
            {},
            {"code": {**TEXTS["code"], "sha256": "d" * 64}},
            "its text code is 2 windows of 32 tokens, hash aaaaaaaaaaaa",
        ),
        ({}, {"code": {**TEXTS["code"], "windows": 3}}, "now it is 3 windows of 32 tokens"),
    ],
)
def test_points_of_other_tokens_or_another_original_are_refused(
    result: Result, tmp_path: Path, source: dict, texts: dict, message: str
) -> None:
    before = (tmp_path / "result.json").read_text()
    with pytest.raises(ConfigError, match="`--out`") as raised:
        Result(tmp_path / "result.json", {**SOURCE, **size(100), **source}, texts, RUN)
    assert message in str(raised.value)
    assert (tmp_path / "result.json").read_text() == before


def said(result: Result, tmp_path: Path, num_bytes: int, ratio: float) -> str:
    result.put("mine", OURS, {**size(num_bytes), "recipe": "r"}, quality(ratio))
    (sentence,) = (each for each in page.verdicts(facts(tmp_path), "code") if each.startswith("code: mine"))
    return sentence


def test_the_page_says_who_wins(result: Result, tmp_path: Path) -> None:
    loses = said(result, tmp_path, 85, 1.2)
    assert "loses to llama.cpp: Q4_0 (0.0 MB, 1.10) is no larger and no worse" in loses
    smaller = said(result, tmp_path, 30, 4.0)
    assert "smaller than every file of llama.cpp" in smaller
    assert "llama.cpp wins in ratio with 5 of its 5 files; the smallest of them, IQ1_S" in smaller
    assert "2.00 times the bytes" in smaller
    better = said(result, tmp_path, 50, 1.05)
    assert "beats IQ1_S (0.0 MB, 3.00), Q4_0 (0.0 MB, 1.10), Q2_K (0.0 MB, 1.50) of llama.cpp" in better
    assert "wins in ratio with 2 of its 5 files; the smallest of them, the original" in better
    assert "None of llama.cpp's keeps more of the original" in said(result, tmp_path, 50, 0.9)
    assert "is beaten by none of llama.cpp's, and beats none" in said(result, tmp_path, 70, 2.0)


def test_without_a_folder_the_page_says_so(result: Result, tmp_path: Path) -> None:
    best, ours = page.verdicts(facts(tmp_path), "code")
    assert "IQ1_S (0.0 MB, 3.00), Q4_0 (0.0 MB, 1.10), the original (0.0 MB, 1.00)" in best
    assert "no packed folder of ours is measured" in ours


def test_a_page_that_is_not_of_its_result_file_is_stale(result: Result, tmp_path: Path) -> None:
    result.refuse("Q1_0", "no block fits")
    result.time("Q4_0", {"tokens_per_s": 5.0, "threads": 2, "others_cores": 0.25})
    words = [f"--result={tmp_path / 'result.json'}", f"--docs={tmp_path / 'docs'}"]
    assert page.main([*words, "--check"]) == 1
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "frontier.md").write_text(text := page.document(facts(tmp_path)))
    assert page.main([*words, "--check"]) == 1  # no picture
    (tmp_path / "docs" / "frontier.svg").touch()
    assert page.main([*words, "--check"]) == 0
    assert "Not there: Q1_0. no block fits" in text
    assert "0.25 to 0.25 cores busy" in text
    result.put("IQ1_S", LLAMA_CPP, size(60), quality(3.1))
    assert page.main([*words, "--check"]) == 1


def test_the_picture_is_the_same_for_the_same_result(result: Result, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result.put("mine", OURS, {**size(30), "recipe": "r"}, quality(4.0))
    for name in ("a.svg", "b.svg"):
        page.draw(facts(tmp_path), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "<!-- IQ1_S -->" in (tmp_path / "a.svg").read_text()
