from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.config.given_path import DECIDED
from bitnet_train.errors import ConfigError


def data(word: str | None, *overrides: str) -> tuple[str, str | None, str]:
    """Source, path as seen from here, and kind."""
    config = compose(word, overrides).config.data
    here = f"{Path.cwd()}/"
    return config.source, config.path and config.path.removeprefix(here), config.kind


def write(folder: Path, data: dict[str, str], *defaults: str) -> str:
    path = folder / "mine.yaml"
    chosen = [{f"override /{group}": choice} for group, choice in (entry.split("=") for entry in defaults)]
    path.write_text("# @package _global_\n" + yaml.safe_dump({"defaults": chosen, "data": data}))
    return str(path)


@pytest.mark.slow
def test_a_path_on_the_command_line_is_read_whatever_the_recipe_reads() -> None:
    assert data("quickstart", "data.path=chats.jsonl") == ("files", "chats.jsonl", "auto")
    assert data("smollm2_binary_full", "data.path=corpus") == ("files", "corpus", "auto")
    assert compose("quickstart", ["data.path=a"]).origins["data.source"] == DECIDED


def test_a_recipe_for_files_keeps_its_kind_with_a_path() -> None:
    assert data("lora_sft_chat", "data.path=a.jsonl") == ("files", "a.jsonl", "chat")


def test_the_kind_of_a_choice_goes_with_its_source() -> None:
    assert data("quickstart", "data.source=files", "data.path=a.jsonl") == ("files", "a.jsonl", "auto")
    assert data("quickstart", "data.source=hub", "data.path=a/b") == ("hub", "a/b", "auto")


def test_what_is_said_besides_the_path_stays() -> None:
    assert data("quickstart", "data.path=a.txt", "data.kind=text") == ("files", "a.txt", "text")
    assert data("quickstart", "data=hub", "data.path=a/b")[0] == "hub"
    assert data("quickstart", "data=self", "data.path=prompts.txt")[0] == "self"
    assert data("quickstart", "data=stdlib", "data.path=a.txt")[0] == "stdlib"
    assert data("quickstart", "data.source=stdlib", "data.path=a.txt")[0] == "stdlib"


def test_a_mix_is_read_whatever_the_recipe_reads() -> None:
    composed = compose("quickstart", ["data.mix=[{path: a.jsonl, weight: 2}, {path: b.txt}]"])
    assert (composed.config.data.source, composed.config.data.kind) == ("files", "auto")
    paths = [entry["path"] for entry in composed.config.data.mix]
    assert paths == [str(Path.cwd() / name) for name in ("a.jsonl", "b.txt")]
    with pytest.raises(ConfigError, match=r"`data\.mix\[0\]`: there is no key `wieght`"):
        compose("quickstart", ["data.mix=[{path: a.jsonl, wieght: 2}]"])


def test_a_path_in_a_recipe_of_ones_own_is_read(tmp_path: Path) -> None:
    recipe = write(tmp_path, {"path": "mine.jsonl"}, "data=stdlib")
    assert data(recipe) == ("files", "mine.jsonl", "auto")
    assert data(recipe, "data=stdlib") == ("stdlib", "mine.jsonl", "text")


def test_a_saved_run_on_the_standard_library_reads_a_path_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(compose("quickstart").config))
    assert data(str(tmp_path)) == ("stdlib", None, "text")
    assert data(str(tmp_path), "data.path=a.jsonl") == ("files", "a.jsonl", "auto")
    assert compose(str(tmp_path), ["data.path=a.jsonl"]).config.data.context_tokens == 256


def test_a_data_set_of_the_hub_is_not_taken_for_a_file() -> None:
    with pytest.raises(
        ConfigError, match=r"`data\.path=OWNER/NAME`: there is no such file.*`data=hub data\.path=OWNER"
    ):
        compose("quickstart", ["data.path=OWNER/NAME"])


def test_a_file_stands_in_the_place_of_a_choice(tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.touch()
    assert data("quickstart", f"data={file}") == ("files", str(file), "auto")
    assert data("lora_sft_chat", f"data={tmp_path}") == ("files", str(tmp_path), "chat")
    assert data(None, f"data={tmp_path}/*.jsonl") == ("files", f"{tmp_path}/*.jsonl", "auto")
    assert compose("quickstart", [f"model={tmp_path}"]).config.model.source == str(tmp_path)


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("data=missing.jsonl", "`data=missing.jsonl` (command line): there is no such file or folder"),
        ("data=OWNER/NAME", "`data=hub data.path=OWNER/NAME`"),
        ("model=OWNER/NAME", "`model.source=OWNER/NAME`"),
        ("data=stdlb", "Did you mean `stdlib`"),
    ],
)
def test_a_path_that_is_not_there_says_what_to_write(word: str, part: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose("quickstart", [word])
    assert part in str(refused.value)
