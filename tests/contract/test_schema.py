"""The schema and the lower floors' own dataclasses say the same: field names, defaults, allowed values."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args

import pytest

from bitnet_train.config.objects import build
from bitnet_train.config.rules import RANGES, RULES
from bitnet_train.config.schema import Config
from bitnet_train.config.suggest import known_keys
from bitnet_train.model.bit_lora import AdapterConfig, AdapterKind
from bitnet_train.model.select import ROLES, Selection
from bitnet_train.model.start.initialise import InitConfig, InitLatents, InitScales
from bitnet_train.packed.int8_tables import TABLE_FORMATS
from bitnet_train.quant.scheme import (
    ActivationName,
    ActivationScheme,
    Granularity,
    ScaleDtype,
    WeightName,
    WeightScheme,
)
from bitnet_train.quant.surrogate import SURROGATES
from bitnet_train.train.blocks.blockwise import BlockLoss, BlockwiseConfig
from bitnet_train.train.data.self_corpus import SelfCorpusConfig
from bitnet_train.train.data.settings import KINDS, PACKING, SOURCES, DataConfig, LoneSurrogates
from bitnet_train.train.loop.fit import FitConfig
from bitnet_train.train.loop.machine import AUTO, PRECISIONS
from bitnet_train.train.loop.optim import OPTIMIZERS, OptimConfig
from bitnet_train.train.loop.schedules import HARDNESS_SCHEDULES, LR_SCHEDULES, ScheduleConfig
from bitnet_train.train.losses.terms import LossConfig
from bitnet_train.train.trackers.tracking import TRACKERS, WANDB_MODES

# section, the dataclass it feeds, keys of the section that something else reads, fields that a stage fills itself
PAIRS: list[tuple[str, type[Any], set[str], set[str]]] = [
    ("model", Selection, {"source"}, set()),
    ("weight", WeightScheme, {"estimator", "clip", "tables", "input_scale", "sub_norm", "overrides"}, set()),
    ("activation", ActivationScheme, set(), set()),
    ("adapter", AdapterConfig, set(), set()),
    ("init", InitConfig, set(), set()),
    ("blockwise", BlockwiseConfig, set(), set()),
    ("data", DataConfig, set(), set()),
    ("data.self_corpus", SelfCorpusConfig, set(), set()),
    ("loss", LossConfig, set(), set()),
    ("schedule", ScheduleConfig, set(), set()),
    ("optimizer", OptimConfig, set(), set()),
    (
        "trainer",
        FitConfig,
        {
            "batch_rows",
            "micro_rows",
            "short_row_tokens",
            "short_row_fraction",
            "max_tokens",
            "max_epochs",
            "max_minutes",
        },
        {"debug", "debug_every_steps", "quiet"},
    ),
]
CHOICES: dict[str, set[str]] = {
    "model.roles": set(ROLES),
    "weight.name": set(get_args(WeightName)),
    "weight.granularity": set(get_args(Granularity)),
    "weight.scale_dtype": set(get_args(ScaleDtype)),
    "weight.estimator": set(SURROGATES),
    "activation.name": set(get_args(ActivationName)),
    "adapter.kind": set(get_args(AdapterKind)),
    "init.scales": set(get_args(InitScales)),
    "init.latents": set(get_args(InitLatents)),
    "blockwise.loss": set(get_args(BlockLoss)),
    "data.source": set(SOURCES),
    "data.kind": set(KINDS),
    "data.packing": set(PACKING),
    "data.lone_surrogates": set(get_args(LoneSurrogates)),
    "schedule.lr": set(LR_SCHEDULES),
    "schedule.hardness": set(HARDNESS_SCHEDULES),
    "optimizer.name": set(OPTIMIZERS),
    "trainer.precision": {AUTO, *PRECISIONS},
    "export.embedding": set(TABLE_FORMATS),
    "export.head": set(TABLE_FORMATS),
    "logger.kind": {*TRACKERS, "custom"},
    "logger.mode": set(WANDB_MODES),
}


def section_of(name: str) -> Any:
    found: Any = Config()
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("name", "kind", "own", "filled"), PAIRS, ids=[row[0] for row in PAIRS])
def test_a_section_has_the_field_names_of_the_dataclass_it_feeds(
    name: str, kind: type[Any], own: set[str], filled: set[str]
) -> None:
    section_names = {field.name for field in fields(section_of(name))}
    assert section_names - own == {field.name for field in fields(kind)} - filled


@pytest.mark.parametrize(("name", "kind", "own", "filled"), PAIRS, ids=[row[0] for row in PAIRS])
def test_a_section_has_the_defaults_of_the_dataclass_it_feeds(
    name: str, kind: type[Any], own: set[str], filled: set[str]
) -> None:
    section = section_of(name)
    for field in fields(kind):
        if field.name in filled or field.default is MISSING or is_dataclass(field.default):
            continue
        given = getattr(section, field.name)
        assert (tuple(given) if isinstance(given, list) else given) == field.default, f"{name}.{field.name}"


@pytest.mark.parametrize(("name", "kind", "own", "filled"), PAIRS, ids=[row[0] for row in PAIRS])
def test_build_makes_the_dataclass_from_its_section(
    name: str, kind: type[Any], own: set[str], filled: set[str]
) -> None:
    made = build(kind, section_of(name))
    assert isinstance(made, kind)


@pytest.mark.parametrize("name", CHOICES)
def test_allowed_values_are_those_of_the_lower_floor(name: str) -> None:
    assert set(known_keys()[name].metadata["choices"]) == CHOICES[name]


def test_every_key_says_what_it_means() -> None:
    silent = [name for name, field in known_keys().items() if len(field.metadata.get("doc", "")) < 4]
    assert silent == []


def test_ranges_and_rules_speak_of_keys_that_exist() -> None:
    named = {name for names, _, _ in RANGES for name in names} | {name for name, _, _ in RULES}
    assert named <= set(known_keys())


def test_every_number_has_a_range() -> None:
    ranged = {name for names, _, _ in RANGES for name in names}
    numbers = {
        name for name, field in known_keys().items() if str(field.type).removesuffix(" | None") in ("int", "float")
    }
    assert numbers - ranged == {"loss.attention_layer", "trainer.seed", "generate.seed", "data.self_corpus.seed"}
