from __future__ import annotations

from pathlib import Path

import pytest

from bitnet_train.__main__ import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.source=./gone"], "/gone`: there is no such directory"),
        (["model.source=gone.gguf"], "there is no such file"),
        (["model.source=notes.txt"], "is a file, but no GGUF"),
        (["model.source=empty"], "has no config.json, so it holds no model"),
        (["teacher.source=./gone"], "`teacher.source="),
        (["data.path=gone.jsonl"], "/gone.jsonl` (command line): there is no such file or folder"),
        (["data.path=notes.txt", "data.validation_path=gone.txt"], "`data.validation_path="),
        (["data.mix=[{path: notes.txt, weight: 1}, {path: gone.txt, weight: 1}]"], "`data.mix[1].path="),
    ],
)
@pytest.mark.parametrize("verb", ["run", "train", "reconstruct"])
def test_what_is_not_there_is_said_before_torch_is_loaded_or_a_folder_made(
    verb: str, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("some text\n")
    before = sorted(tmp_path.iterdir())
    assert main([verb, "quickstart", "run.dir=out", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert sorted(tmp_path.iterdir()) == before


def test_a_pattern_may_match_later_and_a_hub_id_may_be_fetched(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["show", "quickstart", "data.path=texts/*.txt", "model.source=owner/name", "--quiet"]) == 0
