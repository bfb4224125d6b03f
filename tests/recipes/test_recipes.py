"""Every recipe and every named choice composes, type-checks, and says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bitnet_train.config import changed
from bitnet_train.config.compose import compose, to_dict, to_yaml
from bitnet_train.config.layout import groups, house, recipes
from bitnet_train.config.suggest import sections

CHOICES = [(group, choice) for group, files in groups().items() for choice in files]
NEEDS = {  # what a choice must be given besides
    ("model", "hf"): ["model.source=some/model"],
    ("data", "files"): ["data.path=text.txt"],
    ("data", "chat_files"): ["data.path=chats.jsonl"],
    ("data", "hub"): ["data.path=some/dataset"],
    ("adapter", "scales_only"): ["weight=binary_group128"],
    ("schedule", "tanh_cosine"): ["weight.estimator=tanh"],
    ("init", "als"): ["weight=binary_group128"],
    ("init", "error_feedback"): ["weight=binary_group128"],
}


def test_the_recipes_that_the_product_promises_are_there() -> None:
    promised = {"quickstart", "smollm2_binary_lora", "smollm2_binary_full", "smollm2_ternary_full", "lora_sft_chat"}
    assert promised <= set(recipes())


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_composes_and_type_checks(name: str) -> None:
    composed = compose(name, ["data.path=data.jsonl"])
    assert composed.config.recipe == name
    assert composed.notes == []


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_chooses_only_files_that_exist_and_sets_what_it_sets(name: str) -> None:
    content = yaml.safe_load(recipes()[name].read_text())
    composed = compose(name, ["data.path=data.jsonl"])
    for entry in content["defaults"]:
        ((key, choice),) = entry.items()
        assert composed.choices[key.removeprefix("override /")] == choice
    own = {key for key, origin in composed.origins.items() if origin == f"recipes/{name}.yaml"}
    assert {key.split(".")[0] for key in own} == set(content) - {"defaults"}


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_header_says_what_it_needs_how_to_run_it_and_what_to_expect(name: str) -> None:
    lines = recipes()[name].read_text().splitlines()
    assert lines[0] == "# @package _global_"
    header = "\n".join(line for line in lines if line.startswith("#"))
    verb = "train" if compose(name, ["data.path=data.jsonl"]).config.weight.input_scale else "run"
    result = "ablation_tiny" if name.startswith("baselines/") else name
    for word in ("Needs", f"bitnet-train {verb} {name}", f"recipes/results/{result}.json"):
        assert word in header


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes())
def test_any_recipe_can_be_made_small(name: str) -> None:
    config = compose(name, ["debug=tiny", "data.path=data.jsonl"]).config
    assert (config.trainer.max_steps, config.data.context_tokens) == (2, 64)


@pytest.mark.slow
@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_a_named_choice_composes_and_takes_effect(group: str, choice: str) -> None:
    composed = compose(None, [f"{group}={choice}", *NEEDS.get((group, choice), [])])
    file = groups()[group][choice]
    assert composed.choices[group] == choice
    values = yaml.safe_load(file.read_text()) or {}
    reached = {key for key, origin in composed.origins.items() if origin == f"configs/{group}/{choice}.yaml"}
    assert bool(reached) or not values or (group, choice) in NEEDS


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_a_named_choice_starts_with_a_comment_that_says_what_it_is(group: str, choice: str) -> None:
    text = groups()[group][choice].read_text()
    assert any(line.startswith("# ") and "@package" not in line for line in text.splitlines())


def test_every_group_is_a_section_of_the_schema_and_in_the_defaults_list() -> None:
    listed = yaml.safe_load((house() / "configs" / "main.yaml").read_text())["defaults"]
    names = {name for entry in listed if isinstance(entry, dict) for name in entry} - {"recipe"}
    assert set(groups()) == names
    assert names <= sections()


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes())
def test_a_saved_configuration_composes_to_itself(name: str, tmp_path: Path) -> None:
    config = compose(name, ["data.path=data.jsonl", "trainer.max_steps=7"]).config
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    again = compose(str(tmp_path), ["trainer.resume=never"]).config
    assert to_dict(again) == to_dict(changed(config, {"run.dir": str(tmp_path)}))
