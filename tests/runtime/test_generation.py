from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields

import pytest

from bitnet_train.config import Config, changed
from bitnet_train.errors import ConfigError
from bitnet_train.run.prompt import sampling
from bitnet_train.runtime import generate as by_torch
from bitnet_train.runtime.generation import GenerationKeywords, GenerationOptions, Sampling
from bitnet_train.runtime.native.model import NativeModel, Options

NAMES = {field.name for field in fields(GenerationOptions)}


def test_the_keywords_are_the_fields_and_both_engines_take_them() -> None:
    assert set(GenerationKeywords.__annotations__) == NAMES
    assert set(Options.__annotations__) - {"stream", "prompt_cache"} <= NAMES
    for door in (NativeModel.generate, NativeModel.stream, by_torch.generate):
        explicit = {name for name in inspect.signature(door).parameters if name in NAMES}
        assert not explicit, "an option that has a default of its own can come to differ"


def test_a_configuration_sets_every_one_of_them() -> None:
    config = Config()
    assert set(sampling(config)) == NAMES
    told = {"generate.top_k": 7, "data.chat_template_variables": {"enable_thinking": False}}
    config = changed(config, told)
    chosen = GenerationOptions(**sampling(config))
    assert (chosen.top_k, chosen.chat_template_variables) == (7, {"enable_thinking": False})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_new_tokens", (-1, 1.5, True)),
        ("temperature", (-0.1, float("inf"), float("nan"))),
        ("top_k", (-1, 1 << 31)),
        ("top_p", (0.0, 1.1)),
        ("min_p", (-0.1, 1.0)),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, values: tuple[float, ...]) -> None:
    for value in values:
        for kind in (Sampling, GenerationOptions):
            with pytest.raises(ConfigError, match=f"`{name}={value}` is out of range: it must be"):
                kind(**{name: value})


def test_options_are_greedy_by_default_and_do_not_change() -> None:
    options = GenerationOptions()
    assert options.is_greedy
    with pytest.raises(FrozenInstanceError):
        options.temperature = 1.0  # type: ignore[misc]
    assert not GenerationOptions(temperature=0.5).is_greedy
