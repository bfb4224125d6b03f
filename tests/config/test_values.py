"""Text and lists of texts on the command line are what a person meant, quotes, escapes and punctuation included."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bitnet_train.config import Config, changed
from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.config.paths import path_keys
from bitnet_train.config.suggest import known_keys
from bitnet_train.config.values import read_value
from bitnet_train.errors import ConfigError


@pytest.mark.parametrize(
    "text", ["'a' + 'b'", '"Yes," she said, "no"', "'it''s'", '"a" and "b"', "''' '''", '"""doc"""', "'", "a'b"]
)
def test_quotes_that_belong_to_the_text_stay(text: str) -> None:
    assert compose(None, [f"generate.prompt={text}"]).config.generate.prompt == text


@pytest.mark.parametrize(("text", "prompt"), [("'two words'", "two words"), ('"it\'s"', "it's"), ("''", "")])
def test_one_pair_of_quotes_around_all_of_a_text_is_dropped(text: str, prompt: str) -> None:
    assert compose(None, [f"generate.prompt={text}"]).config.generate.prompt == prompt


STOPS = [
    (r'["\n"]', ["\n"]),
    (r"[\n]", ["\n"]),  # as a shell hands on ["\n"]
    ("[\n]", ["\n"]),
    (r"[\n\n,END]", ["\n\n", "END"]),
    (r"['\n']", [r"\n"]),
    (r"[\\n]", [r"\n"]),
    (r'["\t","\"","\u00e9"]', ["\t", '"', "\u00e9"]),
    (r"[\d+\.x]", [r"\d+\.x"]),
    ("[<|im_end|>, </s>]", ["<|im_end|>", "</s>"]),
    ('["a, b",c]', ["a, b", "c"]),
    ("[' a ',\"it's\"]", [" a ", "it's"]),
    ("['it''s']", ["it's"]),
    ("[don't]", ["don't"]),
    ("[Question: what?,###,*,@,~x,1,null]", ["Question: what?", "###", "*", "@", "~x", "1", "null"]),
    ("[${x}]", ["${x}"]),
    ("[]", []),
    ("[ ]", []),
    ("[a,]", ["a"]),
]


@pytest.mark.parametrize(("text", "items"), STOPS)
def test_stop_strings_are_read_as_they_were_meant(text: str, items: list[str]) -> None:
    assert list(compose(None, [f"generate.stop={text}"]).config.generate.stop) == items


def test_stop_strings_are_read_again_as_they_were_saved(tmp_path: Path) -> None:
    every = [item for _, items in STOPS for item in items]
    (tmp_path / "config.yaml").write_text(to_yaml(changed(Config(), {"generate.stop": tuple(every)})))
    assert list(compose(str(tmp_path)).config.generate.stop) == every


@pytest.mark.parametrize("text", ['["a]', "['a]", '["a" b]', '["]'])
def test_a_quote_in_a_list_that_is_not_closed_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a quote is not closed, or something follows it"):
        compose(None, [f"generate.stop={text}"])


def test_a_backslash_in_a_path_stays() -> None:
    texts = compose(None, [r"evaluate.texts=[C:\new.txt,'b.txt']"]).config.evaluate.texts
    assert [Path(text).name for text in texts] == [r"C:\new.txt", "b.txt"]


@pytest.mark.parametrize("name", [name for name, key in known_keys().items() if str(key.type) == "list[str]"])
def test_every_list_of_texts_is_read_alike(name: str) -> None:
    allowed = known_keys()[name].metadata["choices"] or ("a b", "c,d")
    words = name + "=[" + ",".join('"' + item + '"' for item in allowed) + "]"
    saved = yaml.safe_load(to_yaml(compose("quickstart", [words]).config))
    section, leaf = name.split(".")
    read = [Path(item).name for item in saved[section][leaf]] if name in path_keys() else saved[section][leaf]
    assert read == list(allowed)


@pytest.mark.parametrize("opened", ["[", "{a:", "f("])
def test_a_value_of_thousands_of_brackets_is_wrong_usage(opened: str) -> None:
    with pytest.raises(ConfigError, match="at most 32 levels"):
        read_value("data.mix", "data.mix=" + opened * 5000)
