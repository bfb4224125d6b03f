from __future__ import annotations

import pytest

from bitnet_train.config.compose import compose
from bitnet_train.config.layout import groups
from bitnet_train.errors import ConfigError
from bitnet_train.model.settings import AdapterConfig, Selection, WeightConfig
from bitnet_train.python.choices import WeightChoice, settings_of, weight_choice
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.train.loop.schedules import ScheduleConfig
from bitnet_train.train.loop.settings import OptimConfig
from bitnet_train.train.losses.settings import LossConfig

SECTIONS = {
    "activation": ActivationScheme,
    "adapter": AdapterConfig,
    "loss": LossConfig,
    "optimizer": OptimConfig,
    "schedule": ScheduleConfig,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["binary_row", "binary_everywhere", "binary_ternary_down", "binary_3planes_group64"])
def test_a_weight_is_what_the_command_line_makes_of_its_name(name: str) -> None:
    config = compose(None, [f"weight={name}"]).config
    assert weight_choice(name) == WeightChoice(config.weight, config.model.selection)


@pytest.mark.parametrize(("group", "kind"), SECTIONS.items())
def test_every_choice_of_a_section_is_read(group: str, kind: type) -> None:
    made = [settings_of(group, name, kind) for name in groups()[group]]
    assert all(isinstance(settings, kind) for settings in made)
    assert len(set(map(repr, made))) == len(made)


def test_an_object_is_taken_as_it_is() -> None:
    adapter = AdapterConfig(rank=3)
    assert settings_of("adapter", adapter, AdapterConfig) is adapter
    scheme, weight = WeightScheme("ternary", "group", 32), WeightConfig(estimator="tanh")
    assert weight_choice(scheme).weight.scheme == scheme
    assert weight_choice(weight) == WeightChoice(weight, Selection())


def test_a_wrong_name_gives_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"`weight='binary_rwo'`.*Did you mean `binary_row`\?.*ternary_row.*Scheme"):
        weight_choice("binary_rwo")
    with pytest.raises(ConfigError, match=r"`adapter='lora'`.*Choices of `adapter`: lora_inside.*AdapterConfig"):
        settings_of("adapter", "lora", AdapterConfig)


def test_what_is_neither_name_nor_settings_is_said() -> None:
    with pytest.raises(ConfigError, match=r"`weight=3` is a int, not the name of a choice"):
        weight_choice(3)  # pyright: ignore[reportArgumentType]
