"""No path is left in what is answered, and nothing else is taken from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitnet_train.serve.playground.clean import Names


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("`model.source=/home/ada/models/x.gguf` is cut", "`model.source=x.gguf` is cut"),
        ("'/var/tmp/a b' and \"/etc/passwd\"", "'a b' and \"passwd\""),
        ("/a/b/c: no such file (/a/b)", "c: no such file (b)"),
        ("see ../up/there.txt, ./here.txt", "see there.txt, here.txt"),
        ("~/secret/key", "key"),
        (r"C:\Users\ada\x.gguf is none", "x.gguf is none"),
        ("in /home/ada/", "in ada"),
    ],
)
def test_of_a_path_the_last_part_remains(text: str, cleaned: str) -> None:
    assert Names().clean(text) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "HuggingFaceTB/SmolLM2-135M and https://huggingface.co/a/b/c?d=e",
        "12 tokens/s, 3 / 4, w/o",
        "`model.layers.*.mlp.down_proj` 256 x 768, 0.5 s",
        "",
    ],
)
def test_what_is_no_path_stays(text: str) -> None:
    assert Names().clean(text) == text


def test_a_known_place_becomes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = Names({str(tmp_path / "up" / "0f3a" / "model.gguf"): "mine.gguf", "runs/x": "a run"})
    assert names.clean(f"{tmp_path}/up/0f3a/model.gguf is cut") == "mine.gguf is cut"
    assert names.clean(f"runs/x and {tmp_path}/runs/x") == "a run and a run"


def test_all_texts_of_a_value_are_cleaned() -> None:
    value = {"path": "/a/b", "list": ["/c/d", 1, None, {"/e/f": True}]}
    assert Names().clean_all(value) == {"path": "b", "list": ["d", 1, None, {"f": True}]}
