"""A choice becomes a recipe that composes, and converts exactly the layers that were chosen, as they were chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitnet_train.config.compose import compose
from bitnet_train.importers.load import load_pretrained
from bitnet_train.run.assembly import plan_of
from bitnet_train.serve.playground.recipes import Recipes, recipe_content
from bitnet_train.serve.playground.refusal import Refused
from bitnet_train.serve.playground.schemes import SCHEMES, scheme_for
from bitnet_train.serve.playground.workbench.opened import Opened
from bitnet_train.verbs.playground import house
from tests.serve.playground.conftest import Playground

ATTENTION = "model.layers.{}.self_attn.q_proj"
DOWN = "model.layers.{}.mlp.down_proj"

CHOICES = {
    "one layer": {ATTENTION.format(2): "binary"},
    "a family": {DOWN.format(block): "ternary" for block in range(4)},
    "a family but one": {DOWN.format(block): "ternary" for block in range(3)},
    "a family mixed": {DOWN.format(block): word for block, word in enumerate(list(SCHEMES)[1:5])},
    "head and embedding": {"lm_head": "binary4", "model.embed_tokens": "binary2"},
    "the head alone": {"lm_head": "binary", ATTENTION.format(0): "float"},
    "every word": dict(
        zip(
            [DOWN.format(0), DOWN.format(1), "lm_head", ATTENTION.format(1), ATTENTION.format(3)],
            list(SCHEMES)[1:],
            strict=True,
        )
    ),
}


@pytest.fixture(scope="module")
def opened() -> Opened:
    return Opened(load_pretrained("tiny"), None)


@pytest.fixture(scope="module")
def layers(opened: Opened) -> list[dict[str, Any]]:
    return opened.describe()["layers"]


@pytest.mark.parametrize("named", CHOICES)
def test_a_recipe_converts_exactly_what_was_chosen(
    named: str, opened: Opened, layers: list[dict[str, Any]], tmp_path: Path
) -> None:
    choice = CHOICES[named]
    Recipes(tmp_path, house(tmp_path)).save("mine", "tiny", "tiny", layers, choice, None)
    config = compose(str(tmp_path / "mine.yaml")).config
    plan = plan_of(config, opened.loaded)
    shapes = {layer["name"]: layer["shape"] for layer in layers}
    expected = {name: scheme_for(word, shapes[name][1]) for name, word in choice.items() if word != "float"}
    found = plan.schemes
    assert found.keys() == expected.keys()
    for name, scheme in expected.items():
        assert scheme is not None
        assert found[name].describe() == scheme.describe()


@pytest.mark.parametrize("base", ["smollm2_ternary_full", "smollm2_46mb", "baselines/autobitlinear"])
def test_another_recipe_gives_the_rest(base: str, opened: Opened, layers: list[dict[str, Any]], tmp_path: Path) -> None:
    Recipes(tmp_path, house(tmp_path)).save("mine", "tiny", "tiny", layers, CHOICES["one layer"], base)
    config, based = compose(str(tmp_path / "mine.yaml")).config, compose(base).config
    assert plan_of(config, opened.loaded).converted == (ATTENTION.format(2),)
    assert (config.trainer, config.optimizer, config.loss) == (based.trainer, based.optimizer, based.loss)


def test_a_choice_of_nothing_is_no_recipe(layers: list[dict[str, Any]]) -> None:
    with pytest.raises(Refused, match="nothing to train"):
        recipe_content({}, "tiny", layers, {"lm_head": "float"})


def test_a_recipe_that_does_not_compose_is_refused_and_not_kept(layers: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"`data\.path=None`.*is missing"):
        Recipes(tmp_path, house(tmp_path)).save("mine", "tiny", "tiny", layers, {"lm_head": "binary"}, "lora_sft_chat")
    assert list(tmp_path.iterdir()) == []


def test_what_is_answered_has_names_and_no_places(
    playground: Playground, tiny: dict[str, Any], choice: dict[str, str]
) -> None:
    asked = {"name": "mine", "model": tiny["id"], "choice": choice}
    answer = playground.client.post("/recipes", json=asked).json()
    assert answer["yaml"].startswith("# @package _global_\n# Layers of tiny")
    assert {
        "name": "mine",
        "summary": "Layers of tiny, chosen on the playground: 27 x ±1, 1 x −1, 0, +1. Like quickstart otherwise.",
        "own": True,
    } in playground.state()["recipes"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "../evil"}, 400),
        ({"name": ""}, 400),
        ({"name": "a" * 99}, 400),
        ({"name": "a\n"}, 400),
        ({"name": "quickstart"}, 409),
        ({"base": "nothing"}, 404),
        ({"base": "../../etc/passwd"}, 404),
        ({"choice": {}}, 400),
        ({"choice": {"nothing": "binary"}}, 400),
        ({"choice": {"lm_head": "binary9"}}, 400),
        ({"model": "nothing"}, 404),
    ],
)
def test_a_wrong_recipe_is_refused(
    playground: Playground, tiny: dict[str, Any], change: dict[str, Any], status: int
) -> None:
    asked = {"name": "other", "model": tiny["id"], "choice": {"lm_head": "binary"}, **change}
    assert playground.client.post("/recipes", json=asked).status_code == status
    assert not (playground.folder / "playground" / "recipes" / "other.yaml").exists()
