from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.config.interpolation import escape, resolver_in
from bitnet_train.config.objects import build_object
from bitnet_train.errors import ConfigError

CALLS = [
    "${oc.env:TOKEN}",
    "a ${oc.env:TOKEN} b",
    "${oc.env:TOKEN,default}",
    "${oc.decode:${oc.env:TOKEN}}",
    "${${run.name}:TOKEN}",
    "${oc.${run.name}:TOKEN}",
    "${hydra:runtime.cwd}",
    "${now:%Y}",
    "\\\\${oc.env:TOKEN}",
    "\\${a} ${oc.env:TOKEN}",
]
TEXTS = ["${run.name}", "a: ${run.name}: b", "\\${oc.env:TOKEN}", "{a: b}", "$HOME:x", "${a.${b}} c:d", ""]


@pytest.mark.parametrize("text", CALLS)
def test_a_resolver_is_found_at_any_depth(text: str) -> None:
    assert [resolver_in(value) for value in (text, [text], {"a": ({"b": text},)}, {text: 1})] == [text] * 4
    assert resolver_in(escape(text)) is None


@pytest.mark.parametrize("text", TEXTS)
def test_what_calls_none_is_left(text: str) -> None:
    assert resolver_in([text, {"a": text}]) is None


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TOKEN", "SECRET-OF-THE-ENVIRONMENT")
    return os.environ["TOKEN"]


@pytest.mark.parametrize(
    "values",
    [
        {"run": {"name": "${oc.env:TOKEN}"}},
        {"model": {"include": ["${oc.env:TOKEN}"]}},
        {"logger": {"kind": "custom", "custom": {"name": "${oc.env:TOKEN}"}}},
        {"data": {"mix": [{"path": "${oc.env:TOKEN}"}]}},
        {"trainer": {"max_steps": "${oc.env:TOKEN}"}},
    ],
    ids=str,
)
def test_a_recipe_that_asks_the_environment_is_refused_and_its_answer_told_nowhere(
    values: dict[str, Any], token: str, tmp_path: Path
) -> None:
    for name in ("own.yaml", "config.yaml"):
        (tmp_path / name).write_text(OmegaConf.to_yaml({"run": {"dir": None}} | values))
        with pytest.raises(ConfigError, match=r"outside the configuration") as caught:
            compose(str(tmp_path / name if name == "own.yaml" else tmp_path))
        assert str(tmp_path / name) in str(caught.value)
        assert token not in str(caught.value)


def test_a_word_of_the_command_line_asks_nothing_either(token: str) -> None:
    assert token not in to_yaml(compose("quickstart", ["run.name=${oc.env:TOKEN}"]).config)
    with pytest.raises(ConfigError, match="outside the configuration"):
        compose("quickstart", ["logger.custom.name=${oc.env:TOKEN}"])


def test_another_key_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("run: {name: mine}\nlogger: {project: 'of ${run.name}'}\n")
    assert compose(str(tmp_path / "own.yaml")).config.logger.project == "of mine"


def test_no_object_is_built_from_what_the_environment_says(token: str, tmp_path: Path) -> None:
    for hidden in ("${oc.env:TOKEN}", ["${oc.env:TOKEN}"], ({"deep": "${oc.env:TOKEN}"},)):
        spec = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path), "name": hidden}
        with pytest.raises(ConfigError, match=r"asks for `\$\{oc\.env:TOKEN\}`"):
            build_object(spec, "logger.custom")
