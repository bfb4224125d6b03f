from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from bitnet_train.config import Config, changed
from bitnet_train.config.compose import to_yaml
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.machine import settle_machine
from bitnet_train.train.loop.machine import CLEARLY, arithmetic


def settled(directory: RunDirectory | None, **trainer: object) -> tuple[Config, str]:
    text, settings = io.StringIO(), {"accelerator": "cpu", "num_threads": 1, **trainer}
    config = changed(Config(), {f"trainer.{key}": value for key, value in settings.items()})
    return settle_machine(config, directory, Console(file=text, width=500))[0], text.getvalue()


def test_auto_becomes_a_precision_and_the_facts_say_why(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.create(to_yaml(Config()))
    config, _ = settled(directory, precision="auto")
    facts = directory.facts("machine")
    assert facts is not None
    assert config.trainer.precision == facts["precision"] == arithmetic("auto", "cpu").precision
    assert facts["num_threads"] == 1
    assert "times as long" in facts["why"]


def test_a_continued_run_keeps_the_arithmetic_and_threads_it_began_with(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.create(to_yaml(Config()))
    other = "fp32" if arithmetic("auto", "cpu").precision == "bf16" else "bf16"
    settled(directory, precision=other)
    config, _ = settled(directory, precision="auto", num_threads=None, resume="auto")
    assert (config.trainer.precision, config.trainer.num_threads) == (other, 1)


def test_bf16_by_name_is_warned_of_only_where_it_is_slower() -> None:
    found = arithmetic("bf16", "cpu")
    _, printed = settled(None, precision="bf16")
    assert ("imitates bf16" in printed) == (found.bf16_ms > found.fp32_ms)


def test_arithmetic_asked_for_by_name_later_is_kept_from_there_on(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.create(to_yaml(Config()))
    settled(directory, precision="fp32")
    settled(directory, precision="bf16", resume="auto")
    config, _ = settled(directory, precision="auto", resume="auto")
    assert config.trainer.precision == "bf16"


def test_auto_becomes_the_products_that_a_timing_finds_faster_and_the_facts_say_by_how_much(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.create(to_yaml(Config()))
    config, _ = settled(directory, micro_rows=1)
    facts = directory.facts("machine")
    assert facts is not None
    ms = facts["products"]["ms"]
    assert config.trainer.products == facts["products"]["name"] in ms
    assert "products" in facts["why"]
    if config.trainer.products != "float":
        assert ms["float"] > CLEARLY * ms[config.trainer.products]
    other = "float" if config.trainer.products != "float" else "integer"
    facts["products"]["name"] = other
    (tmp_path / "facts" / "machine.json").write_text(json.dumps(facts))
    assert settled(directory, resume="auto", micro_rows=1)[0].trainer.products == other, "a continued run keeps them"


def test_products_asked_for_by_name_are_not_timed(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.create(to_yaml(Config()))
    config, _ = settled(directory, products="integer")
    facts = directory.facts("machine")
    assert facts is not None
    assert (config.trainer.products, facts["products"]) == ("integer", {"name": "integer", "ms": {}})


def test_without_integers_to_multiply_products_are_float(tmp_path: Path) -> None:
    config = changed(Config(), {"trainer.accelerator": "cpu", "trainer.num_threads": 1, "activation.name": "none"})
    assert settle_machine(config, None, Console(file=io.StringIO()))[0].trainer.products == "float"
