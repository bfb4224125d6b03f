"""Every key that names a file or a folder knows the home folder, whatever layer it was set in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bitnet_train.__main__ import main
from bitnet_train.config.check import value_of
from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.config.draft import Draft
from bitnet_train.config.paths import expand_paths, path_keys
from bitnet_train.config.suggest import known_keys
from bitnet_train.errors import ConfigError

SPEAKS_OF_PATHS = re.compile(r"\b(files?|folders?|directory|path|program|model\.source)\b")
NAMES_NONE = {  # their meaning speaks of files, their value is no path
    "run.name",  # of a folder inside `run.root`
    "logger.name",
    "logger.uri",  # an address, or of trackio a folder
    "data.self_corpus.prompt_tokens",
    "blockwise.memory_mb",
    "export.format",
    "export.modelfile",
    "export.also",
    "data.mix",  # of whose entries two keys are paths: tested by itself
    "export.push_to_hub",
    "evaluate.window_tokens",
    "evaluate.window_overlap",
    "evaluate.max_questions",
    "evaluate.num_prompts",
    "playground.worker_mb",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def as_value(name: str, text: str) -> Any:
    kind = str(known_keys()[name].type)
    return [text] if kind.startswith("list") else {"save_dir": text} if kind.startswith("dict") else text


def as_word(name: str, text: str) -> str:
    value = as_value(name, text)
    return f"{name}.save_dir={text}" if isinstance(value, dict) else f"{name}={f'[{text}]' if value != text else text}"


@pytest.mark.parametrize("name", path_keys())
def test_the_home_folder_is_known_in_every_path_key(name: str, home: Path) -> None:
    draft = Draft()
    section, leaf = draft, name
    while "." in leaf:
        first, leaf = leaf.split(".", 1)
        section = getattr(section, first)
    for given, expected in (("~/my/x", str(home / "my/x")), ("~", str(home)), ("a~b", "a~b"), ("./~", "./~")):
        setattr(section, leaf, as_value(name, given))
        expand_paths(draft)
        assert value_of(draft, name) == as_value(name, expected)


@pytest.mark.parametrize("name", [name for name in path_keys() if name != "logger.custom"])
def test_a_word_of_the_command_line_may_begin_with_the_home_folder(name: str, home: Path) -> None:
    assert value_of(compose(None, [as_word(name, "~/x")]).config, name) == as_value(name, str(home / "x"))


AS_TYPED = ("run.root", "run.dir", "playground.dir")
INPUTS = [name for name in path_keys() if name not in (*AS_TYPED, "logger.custom", "bench.llama_bench")]


@pytest.mark.parametrize("name", INPUTS)
def test_a_relative_path_is_saved_from_the_root(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "x").touch()
    monkeypatch.chdir(tmp_path)
    config = compose(None, [as_word(name, "my/x")]).config
    assert value_of(config, name) == as_value(name, str(tmp_path / "my" / "x"))
    saved = yaml.safe_load(to_yaml(config))
    for section in name.split("."):
        saved = saved[section]
    assert saved == as_value(name, str(tmp_path / "my" / "x"))


@pytest.mark.parametrize("name", [name for name in INPUTS if known_keys()[name].metadata["model"]])
def test_a_name_that_is_no_path_is_saved_as_one_on_the_hub(name: str) -> None:
    assert value_of(compose(None, [f"{name}=org/name"]).config, name) == "hub:org/name"
    assert value_of(compose(None, [f"{name}=tiny"]).config, name) == "tiny"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("trainer.resume", "auto"),
        ("trainer.resume", "never"),
        ("evaluate.against", "none"),
        ("bench.llama_bench", "llama-bench"),
        ("run.dir", "runs/x"),
        ("run.root", "runs"),
        ("playground.dir", "play"),
    ],
)
def test_words_and_the_place_of_a_run_stay_as_they_were_typed(name: str, word: str) -> None:
    assert value_of(compose(None, [f"{name}={word}"]).config, name) == word


def test_a_data_set_of_the_hub_stays_a_name_and_a_pattern_of_files_does_not(tmp_path: Path) -> None:
    assert compose(None, ["data.source=hub", "data.path=org/set"]).config.data.path == "org/set"
    files = compose(None, ["data.source=files", "data.path=texts/*.jsonl"]).config.data.path
    assert files == str(Path.cwd() / "texts/*.jsonl")


def test_the_paths_within_a_mix_are_saved_from_the_root_too(home: Path) -> None:
    words = [
        "data.source=files",
        "data.mix=[{path: a.jsonl, weight: 2}, {path: '~/b.txt', validation_path: held/c.txt}]",
    ]
    assert list(compose(None, words).config.data.mix) == [
        {"path": str(Path.cwd() / "a.jsonl"), "weight": 2},
        {"path": str(home / "b.txt"), "validation_path": str(Path.cwd() / "held/c.txt")},
    ]


def test_a_run_is_continued_from_another_working_directory_with_the_same_model_and_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "llama").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    first = compose("quickstart", ["model.source=models/llama", "run.dir=run"]).config
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(first))
    monkeypatch.chdir("/")
    again = compose(str(tmp_path / "run")).config
    assert again.model.source == str(tmp_path / "models" / "llama")
    assert again.data.path == first.data.path


def test_a_logger_of_ones_own_knows_the_home_folder(home: Path) -> None:
    words = ["logger.kind=custom", "logger.custom._target_=lightning.pytorch.loggers.CSVLogger"]
    custom = compose(None, [*words, "logger.custom.save_dir=~/x"]).config.logger.custom
    assert custom["save_dir"] == str(home / "x")


def test_a_recipe_may_name_the_home_folder_and_a_run_saves_the_whole_path(home: Path) -> None:
    (home / "mine.yaml").write_text("model: {source: ~/m}\nrun: {root: ~/all}\n")
    config = compose("~/mine.yaml").config
    assert (config.model.source, config.run.root) == (str(home / "m"), str(home / "all"))
    assert yaml.safe_load(to_yaml(config))["run"]["root"] == str(home / "all")


def test_a_name_that_is_no_users_is_refused_with_the_key() -> None:
    with pytest.raises(ConfigError, match=r"`run\.dir=~surely_nobody/x`.*`\./~surely_nobody/x`"):
        compose(None, ["run.dir=~surely_nobody/x"])


def test_a_recipe_is_copied_into_the_home_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cp", "quickstart", "~/mine.yaml"]) == 0
    assert (home / "mine.yaml").is_file()
    assert str(home / "mine.yaml") in capsys.readouterr().out


def test_a_key_that_speaks_of_files_is_marked_as_a_path_or_listed_here() -> None:
    speaking = {name for name, key in known_keys().items() if SPEAKS_OF_PATHS.search(key.metadata["doc"])}
    assert speaking - set(path_keys()) <= NAMES_NONE


TOO_LONG = {"name": "x" * 256, "whole": "ab/" * 1400, "letters of two bytes": "é" * 130}


def put(draft: Draft, name: str, value: Any) -> None:
    *sections, leaf = name.split(".")
    section: Any = draft
    for each in sections:
        section = getattr(section, each)
    setattr(section, leaf, value)


@pytest.mark.parametrize("name", path_keys())
@pytest.mark.parametrize("text", [*TOO_LONG.values(), "a\0b"], ids=[*TOO_LONG, "code 0"])
def test_what_no_file_system_takes_is_refused_by_the_name_of_its_key(name: str, text: str) -> None:
    draft = Draft()
    put(draft, name, as_value(name, text))
    with pytest.raises(ConfigError, match=rf"`{re.escape(name)}=.*(too long for a path|character of code 0)"):
        expand_paths(draft)
    put(draft, name, as_value(name, "x" * 255))
    expand_paths(draft)


@pytest.mark.parametrize("key", ["path", "validation_path"])
def test_the_paths_of_a_mix_are_held_to_the_same(key: str) -> None:
    draft = Draft()
    draft.data.mix = [{"path": "a.txt"}, {key: "x" * 256}]
    with pytest.raises(ConfigError, match=rf"`data\.mix\[1\]\.{key}=x+\.\.\.` is too long"):
        expand_paths(draft)


@pytest.mark.parametrize(
    "words",
    [
        ["show", "LONG"],
        ["show", "a/LONG"],
        ["cp", "LONG"],
        ["cp", "quickstart", "LONG.yaml"],
        ["ls", "LONG"],
        ["import", "LONG"],
        ["show", "quickstart", "model=LONG"],
        ["show", "quickstart", "data=LONG"],
        ["show", "quickstart", "model.source=LONG"],
        ["show", "quickstart", "data.path=LONG"],
        ["show", "quickstart", "data.path=[a]LONG*"],
        ["show", "quickstart", "trainer.resume=LONG"],
        ["show", "quickstart", "run.root=LONG"],
    ],
    ids=" ".join,
)
def test_a_word_that_is_too_long_for_a_path_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main([word.replace("LONG", "x" * 5000) for word in words]) == 2
    assert "ConfigError" in capsys.readouterr().err


def test_a_long_text_is_no_path() -> None:
    prompt = "word " * 1000
    assert compose("quickstart", [f"generate.prompt={prompt}"]).config.generate.prompt == prompt
    assert main(["show", "quickstart", f"generate.prompt={prompt}", "--quiet"]) == 0
