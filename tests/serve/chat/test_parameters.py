"""`/params`: shown and set."""

from __future__ import annotations

import pytest

from bitnet_train.errors import ConfigError
from bitnet_train.runtime.generation import GenerationOptions
from bitnet_train.serve.chat.parameters import NAMES, parameter_line, with_parameters

OPTIONS = GenerationOptions(chat=True)


def test_values_of_every_kind_are_read() -> None:
    changed = with_parameters(OPTIONS, ' temperature=0.8  top_p = 0.95 max_new_tokens=7 seed=-1 stop=["END", "\\n\\n"]')
    assert (changed.temperature, changed.top_p, changed.max_new_tokens, changed.seed) == (0.8, 0.95, 7, -1)
    assert changed.stop == ("END", "\n\n")
    assert changed.chat


@pytest.mark.parametrize(
    ("words", "stop"), [("stop=END", ("END",)), ('stop="a b"', ("a b",)), ("stop=", ()), ("stop=[]", ())]
)
def test_stop_strings_are_a_word_a_text_or_a_list(words: str, stop: tuple[str, ...]) -> None:
    assert with_parameters(OPTIONS, words).stop == stop


@pytest.mark.parametrize("name", NAMES)
def test_the_line_that_shows_them_sets_them_again(name: str) -> None:
    other = with_parameters(OPTIONS, 'max_new_tokens=3 temperature=0.5 top_k=4 top_p=0.5 min_p=0.1 seed=9 stop=["a b"]')
    other = with_parameters(other, "typical_p=0.9 repetition_penalty=1.1 frequency_penalty=0.2 presence_penalty=-1")
    other = with_parameters(other, 'logit_bias={"5": -100, "17": 2.5}')
    assert other.logit_bias == {5: -100, 17: 2.5}
    assert getattr(with_parameters(OPTIONS, parameter_line(other)), name) == getattr(other, name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("temperatures=1", r"There is no parameter `temperatures`. Did you mean `temperature`\? Known: "),
        ("chat=false", "There is no parameter `chat`"),
        ("temperature=hot", "`temperature=hot` is not a number"),
        ("temperature=nan", "`temperature=nan` is out of range: it must be a finite number"),
        ("top_k=1.5", "`top_k=1.5` is not a whole number"),
        ("top_p=2", r"`top_p=2.0` is out of range: it must be above 0 and at most 1"),
        ("max_new_tokens=99999999999999999999", "`max_new_tokens=99999999999999999999` is out of range"),
        ("stop=[", "is no JSON"),
        ('stop=[""]', "a list of texts that are not empty"),
        ("stop=[1]", r"`stop=\[1\]` is no JSON. A list of texts is"),
        ('stop="\\x"', "is no JSON: Invalid"),
        ("logit_bias=5", "is no JSON object of numbers by token id"),
        ('logit_bias={"a": 1}', "is no JSON object of numbers by token id"),
        ('logit_bias={"5": 101}', "out of range: it must be numbers between -100 and 100 by token id"),
        ("presence_penalty=3", "`presence_penalty=3.0` is out of range: it must be between -2 and 2"),
        ("warm", "`warm` is no NAME=VALUE"),
        ("seed=1 \x1b[2J", r"`\\x1b\[2J` is no NAME=VALUE"),
    ],
)
def test_what_cannot_be_set_is_refused_and_changes_nothing(words: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_parameters(OPTIONS, words)
