"""A setting is written once, as a field of its room's settings class: all that speaks of keys follows from it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bitnet_train.config.draft import Draft, settled
from bitnet_train.config.rules import RULES
from bitnet_train.config.schema import Config
from bitnet_train.config.suggest import known_keys
from bitnet_train.exporters.registry import EXPORTERS
from bitnet_train.model.patterns import ROLES
from bitnet_train.packed.int8_tables import TABLE_FORMATS
from bitnet_train.quant.surrogate import SURROGATES
from bitnet_train.run.exports import ADAPTER, PACKED
from bitnet_train.train.loop.machine import PRECISIONS
from bitnet_train.train.loop.optim import OPTIMIZERS
from bitnet_train.train.loop.schedules import HARDNESS_SCHEDULES, LR_SCHEDULES
from bitnet_train.train.loop.settings import AUTO
from bitnet_train.train.trackers.tracking import TRACKERS
from bitnet_train.train.trackers.wandb_tracker import WANDB_MODES

TABLES: dict[str, set[str]] = {  # names that a settings class, which imports no torch, cannot take from their table
    "model.roles": set(ROLES),
    "weight.estimator": set(SURROGATES),
    "schedule.lr": set(LR_SCHEDULES),
    "schedule.hardness": set(HARDNESS_SCHEDULES),
    "optimizer.name": set(OPTIMIZERS),
    "trainer.precision": {AUTO, *PRECISIONS},
    "export.format": {PACKED, ADAPTER, *EXPORTERS},
    "export.also": set(EXPORTERS),
    "export.embedding": set(TABLE_FORMATS),
    "export.head": set(TABLE_FORMATS),
    "logger.kind": {*TRACKERS, "custom"},
    "logger.mode": set(WANDB_MODES),
}

WITH_TWO_MORE_FIELDS = """
import contextlib, io, json
from dataclasses import dataclass
from typing import Literal
from bitnet_train.settings import setting
from bitnet_train.train.loop import settings

@dataclass(frozen=True)
class TrainerConfig(settings.TrainerConfig):
    pace: Literal["never", "always"] = setting("never", "pace the forward pass")
    pace_rows: int | None = setting(None, "rows of a paced pass; null = all", at_least=4)

settings.TrainerConfig = TrainerConfig
from bitnet_train.__main__ import main

def told(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["show", *words])
    return [code, out.getvalue() + err.getvalue()]

asked = json.loads(input())
print(json.dumps([told(*words) for words in asked]))
"""
ASKED: list[tuple[list[str], int, str]] = [  # words, exit code, what is said
    (["--keys"], 0, "trainer.pace: never\n    str: pace the forward pass [never, always]"),
    (["--keys"], 0, "trainer.pace_rows: null\n    int | None: rows of a paced pass; null = all [4 or more]"),
    (["quickstart"], 0, "\n  pace: never\n  pace_rows: null\n"),
    (["quickstart", "pace=always"], 0, "\n  pace: always  # command line\n"),
    (
        ["quickstart", "pace=alwayz"],
        2,
        "`trainer.pace=alwayz` (command line) is not a known choice. Did you mean",
    ),
    (["quickstart", "pace_rows=3"], 2, "`trainer.pace_rows=3` (command line) is out of range: it must be 4 or"),
    (["quickstart", "pace_rows=many"], 2, "is not a whole number or null. The key means: rows of a paced pass"),
    (["quickstart", "trainer.pac=always"], 2, "Did you mean `trainer.pace`?"),
]


@pytest.mark.slow
def test_a_field_that_is_added_to_a_settings_class_is_a_key_with_help_choices_range_and_errors() -> None:
    words = json.dumps([row[0] for row in ASKED])
    code = [sys.executable, "-c", WITH_TWO_MORE_FIELDS]
    done = subprocess.run(code, input=words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for (asked, exit_code, part), (found_code, said) in zip(ASKED, json.loads(done.stdout), strict=True):
        assert found_code == exit_code, said
        assert part in said, asked


def test_the_draft_of_a_configuration_has_its_defaults() -> None:
    assert settled(Config, Draft(path="x", recipe="y")) == Config(path="x", recipe="y")


@pytest.mark.parametrize("name", TABLES)
def test_allowed_values_are_the_names_of_the_table_that_is_looked_up(name: str) -> None:
    assert set(known_keys()[name].metadata["choices"]) == TABLES[name]


def test_every_key_says_what_it_means() -> None:
    silent = [name for name, field in known_keys().items() if len(field.metadata.get("doc", "")) < 4]
    assert silent == []


def test_rules_speak_of_keys_that_exist() -> None:
    assert {name for name, _, _ in RULES} <= set(known_keys())


def test_every_number_has_a_range() -> None:
    numbers = {
        name
        for name, field in known_keys().items()
        if str(field.type).removeprefix("list[").removesuffix(" | None").removesuffix("]") in ("int", "float")
    }
    free = {name for name in numbers if known_keys()[name].metadata["allowed"].range.is_open}
    assert free == {"loss.attention_layer", "trainer.seed", "generate.seed", "data.self_corpus.seed"}
    assert "optimizer.betas" in numbers
