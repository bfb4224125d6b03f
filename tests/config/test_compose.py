"""Composition: what wins over what, and how a mistake is answered before anything is loaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

import bitnet_train
from bitnet_train.config import build_object, changed
from bitnet_train.config.compose import compose, to_dict, to_yaml
from bitnet_train.config.layout import house, recipes
from bitnet_train.config.older import OLDER, without_older
from bitnet_train.config.rules import RULES, Rule
from bitnet_train.errors import ConfigError
from bitnet_train.run.trained_settings import check_finished

CSV_LOGGER = "lightning.pytorch.loggers.CSVLogger"

MISTAKES = [  # words, what the message must hold
    (["weight.granularty=row"], ["`weight.granularty=row`", "command line", "Did you mean `weight.granularity`"]),
    (["trainer.lr=1"], ["`trainer.lr`", "Did you mean `blockwise.lr` or `schedule.lr` or `optimizer.lr`"]),
    (["trainr.max_steps=1"], ["Did you mean `trainer.max_steps`"]),
    (["wieght=binary_row"], ["Did you mean `weight`"]),
    (["data.self_corpus.documnts=1"], ["Did you mean `data.self_corpus.documents`"]),
    (["weight=ternary_rw"], ["Did you mean `ternary_row`", "binary_group128"]),
    (["weight.name=tenary"], ["`weight.name=tenary`", "Did you mean `ternary`", "Allowed: binary, ternary"]),
    (["model.roles=[mlp,hed]"], ["`model.roles=hed`", "Did you mean `head`"]),
    (["trainer.max_steps=many"], ["`trainer.max_steps=many`", "not a whole number", "optimiser steps"]),
    (["trainer.max_steps=1.5"], ["not a whole number"]),
    (["export.force=perhaps"], ["not true or false"]),
    (["optimizer.lr=fast"], ["a finite number above 0, or auto"]),
    (["model.include=mlp"], ["not a list"]),
    (["optimizer.betas=[0.9]"], ["two numbers"]),
    (["optimizer.lr=nan"], ["finite number above 0"]),
    (["trainer.max_steps=0"], ["out of range", "1 or more"]),
    (["seed=1"], ["which one", "`trainer.seed`", "`generate.seed`"]),
    (["trainer.max_steps=1,2"], ["not a sweep"]),
    (["+trainer.extra=1"], ["Write `trainer.extra=1`"]),
    (["~weight.clip=1"], ["Write `weight.clip=1`"]),
    (["force"], ["Write `force=VALUE`"]),
    (["model.include=[a"], ["not a `key=value` word"]),
    (["model=hf"], ["`model.source` must be given"]),
]

CONTRADICTIONS = [  # one for each row of RULES, in its order
    ("run.name", ["run.name=../.."]),
    ("adapter.dropout", ["adapter=lora_inside", "adapter.dropout=0.1"]),
    ("adapter.alpha", ["adapter=lora_inside", "adapter.alpha=0"]),
    ("weight.input_scale", ["weight=binary_group128", "weight.input_scale=true"]),
    (
        "weight.overrides",
        [
            "weight=binary_row",
            "weight.learnable_scale=true",
            "weight.input_scale=true",
            "weight.overrides=[{role:mlp,name:ternary}]",
        ],
    ),
    ("weight.budget_mb", ["weight=ternary_row", "weight.budget_mb=3"]),
    ("adapter.kind", ["adapter=scales_only", "weight=binary_row"]),
    ("trainer.micro_rows", ["trainer.micro_rows=9", "trainer.batch_rows=8"]),
    ("trainer.products", ["trainer.compile=true", "trainer.products=integer"]),
    ("schedule.hardness", ["schedule=tanh_cosine"]),
    ("schedule.hardness", ["schedule=lambda_linear", "weight.estimator=tanh"]),
    ("schedule.tanh_start", ["schedule.tanh_start=5", "schedule.tanh_end=2"]),
    ("adapter.latent_shrink", ["weight=binary_row", "adapter.latent_shrink=0.1"]),
    ("init.scales", ["weight=binary_row", "init.scales=als"]),
    ("init.latents", ["weight=binary_row", "init.latents=error_feedback"]),
    ("weight.input_scale", ["weight.learnable_scale=true", "weight.input_scale=true", "blockwise.enabled=true"]),
    ("weight.sub_norm", ["weight.sub_norm=true", "blockwise=on"]),
    ("loss.kl", ["loss.kl=0"]),
    ("teacher.cache", ["teacher.cache=topk", "loss.hidden=1"]),
    ("teacher.cache", ["teacher.cache=states", "loss.hidden=1"]),
    ("teacher.products", ["teacher.cache=topk", "teacher.products=int8", "loss.hidden=0"]),
    ("optimizer.lr", ["optimizer.lr=auto", "adapter=lora_inside"]),
    ("trainer.max_minutes", ["trainer.max_minutes=2", "trainer.devices=2"]),
    ("weight.budget_mb", ["weight.budget_mb=3", "trainer.devices=2"]),
    ("blockwise.enabled", ["blockwise=on", "trainer.devices=2"]),
    ("trainer.short_row_tokens", ["data.context_tokens=512", "trainer.short_row_tokens=200"]),
    ("blockwise.row_tokens", ["blockwise=on", "data.context_tokens=512", "blockwise.row_tokens=200"]),
    ("trainer.max_tokens", ["trainer.max_tokens=1000", "trainer.max_minutes=2"]),
    ("trainer.validate_every_steps", ["trainer.keep_best=true", "trainer.validate_every_steps=0"]),
    ("trainer.max_epochs", ["trainer.max_epochs=2", "trainer.max_tokens=1000"]),
    ("data.path", ["data.source=hub"]),
    ("data.mix", ["data=self", "data.mix=[{path:a}]"]),
    ("data.mix", ["data.mix=[{path:a}]", "trainer.short_row_tokens=128"]),
    ("data.min_tokens", ["data.min_tokens=300"]),
    ("data.self_corpus.document_tokens", ["data.self_corpus.document_tokens=9"]),
    ("model.roles", ["model.roles=[]"]),
    ("export.embedding", ["export.embedding=int8", "model.roles=[mlp,embedding]"]),
    ("export.modelfile", ["export.modelfile=true"]),
    ("export.head", ["export.head=int8", "model.roles=[mlp,head]"]),
    ("generate.stop", ["generate.stop=[END,'']"]),
    ("generate.system", ["generate.system=Be brief."]),
    ("generate.prompt_cache", ["generate.prompt_cache=FILE", "generate.engine=hf"]),
    ("logger.custom", ["logger.kind=custom"]),
    ("logger.custom", ["logger.kind=custom", "logger.custom._target_=os.system"]),
]


def refusal(word: str | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(word, overrides)
    return str(caught.value)


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(("words", "parts"), MISTAKES, ids=[row[0][0] for row in MISTAKES])
def test_a_mistake_is_named_with_the_nearest_right_word(words: list[str], parts: list[str]) -> None:
    message = refusal(None, *words)
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(("rule", "contradiction"), list(zip(RULES, CONTRADICTIONS, strict=True)))
def test_every_rule_refuses_its_contradiction(rule: Rule, contradiction: tuple[str, list[str]]) -> None:
    name, words = contradiction
    message = refusal(None, *words)
    assert message.startswith(f"`{name}=")
    assert rule[2] in message


@pytest.mark.parametrize("name", ["..", "a/../../b", "/tmp/elsewhere", ".", "''"])
def test_no_name_of_a_run_leaves_the_folder_of_runs(name: str) -> None:
    assert "names no folder inside `run.root`" in refusal("quickstart", f"run.name={name}")
    assert compose("quickstart", ["run.name=a/b.c"]).config.run.name == "a/b.c"


def test_a_wrong_key_in_a_recipe_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "trainer:\n  max_step: 3\n")
    message = refusal(path)
    assert f"`trainer.max_step` ({path})" in message
    assert "Did you mean `trainer.max_steps`" in message


def test_a_wrong_type_in_a_recipe_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "trainer:\n  max_steps: soon\n")
    assert f"`trainer.max_steps=soon` ({path}) is not a whole number" in refusal(path)


def test_a_value_out_of_range_names_the_file_it_came_from(tmp_path: Path) -> None:
    path = write(tmp_path, "optimizer:\n  lr: -1\n")
    assert f"`optimizer.lr=-1` ({path})" in refusal(path)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("trainer: 3\n", "`trainer`"),
        ("- a\n- b\n", "must hold `key: value` lines"),
        ("a: [1\n", "not readable as YAML"),
        ("trainer:\n  seed: 1\n  seed: 2\n", "duplicate key"),
        ("defaults:\n  - weight: binary_row\n", "not `override /GROUP: CHOICE`"),
        ("defaults: {}\n", "`defaults` must be a list of entries"),
        ("defaults: 3\n", "`defaults` must be a list of entries"),
        ("defaults:\n", "`defaults` must be a list of entries"),
        ("defaults:\n  - override /wieght: binary_row\n", "Did you mean `weight`"),
        ("defaults:\n  - override /weight: binary_rwo\n", "Did you mean `binary_row`"),
        ("dry_run: true\n", "no such key"),
        ("# @package _global_\ndefaults:\n  - override /blockwise: on\n", 'write "on"'),
    ],
)
def test_a_recipe_that_is_not_one_is_refused_by_name(tmp_path: Path, text: str, part: str) -> None:
    path = write(tmp_path, text)
    message = refusal(path)
    assert part in message
    assert path in message


def test_a_word_that_names_nothing_suggests_the_nearest_recipe() -> None:
    assert "Did you mean `quickstart`" in refusal("quickstrat")


def test_a_folder_that_is_neither_run_nor_artefact_is_refused(tmp_path: Path) -> None:
    assert "neither a run directory" in refusal(str(tmp_path))


@pytest.mark.slow
def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_the_group(tmp_path: Path) -> None:
    path = write(tmp_path, "defaults:\n  - override /weight: binary_group64\nweight:\n  group_size: 32\n")
    assert compose(path).config.weight.group_size == 32
    assert compose(path, ["weight.group_size=16"]).config.weight.group_size == 16
    origins = compose(path, ["weight.clip=2"]).origins
    assert origins["weight.learnable_scale"] == "configs/weight/binary_group64.yaml"
    assert origins["weight.group_size"] == path
    assert origins["weight.clip"] == "command line"


def test_a_group_chosen_over_a_recipe_says_what_the_recipe_keeps(tmp_path: Path) -> None:
    path = write(tmp_path, "defaults:\n  - override /weight: binary_group64\nweight:\n  group_size: 32\n")
    composed = compose(path, ["weight=binary_group128"])
    assert composed.config.weight.group_size == 32
    assert len(composed.notes) == 1
    assert "Add `weight.group_size=128`" in composed.notes[0]
    assert compose(path, ["weight=binary_group128", "weight.group_size=128"]).notes == []


def test_a_short_key_works_where_it_is_unique() -> None:
    config = compose(None, ["max_steps=3", "resume=auto"]).config
    assert (config.trainer.max_steps, config.trainer.resume) == (3, "auto")


@pytest.mark.parametrize(
    ("word", "prompt"),
    [
        ("def f(x, y=1): # {a: [b", "def f(x, y=1): # {a: [b"),
        ('"in quotes"', "in quotes"),
        ("'", "'"),
        ("${HOME} \\${x} 1e5", "${HOME} \\${x} 1e5"),
        ("true", "true"),
        ("12", "12"),
        ("", ""),
    ],
)
def test_text_is_taken_as_it_stands(word: str, prompt: str) -> None:
    assert compose(None, [f"generate.prompt={word}"]).config.generate.prompt == prompt


def test_null_empties_a_key_that_may_be_empty() -> None:
    assert compose(None, ["data.path=a", "data.path=null"]).config.data.path is None


@pytest.mark.slow
def test_a_saved_run_brings_its_configuration_and_is_continued(tmp_path: Path) -> None:
    saved = compose("quickstart", ["trainer.max_steps=7", "weight.clip=2"]).config
    write(tmp_path, to_yaml(saved), "config.yaml")
    again = compose(str(tmp_path))
    assert again.target.kind == "run"
    assert (again.config.recipe, again.config.trainer.max_steps, again.config.weight.clip) == ("quickstart", 7, 2.0)
    assert (again.config.path, again.config.run.dir) == (str(tmp_path), str(tmp_path))
    assert again.config.trainer.resume == "auto"
    assert compose(str(tmp_path), ["resume=never"]).config.trainer.resume == "never"


@pytest.mark.slow
def test_a_run_older_than_a_key_goes_on_as_it_ran_and_a_recipe_does_not(tmp_path: Path) -> None:
    saved = to_yaml(compose("quickstart").config)
    assert "  tables: int8\n" in saved
    write(tmp_path, saved.replace("  tables: int8\n", ""), "config.yaml")
    assert compose(str(tmp_path)).config.weight.tables == OLDER["weight.tables"] == "exact"
    assert compose("quickstart").config.weight.tables == "int8"


def test_a_run_recorded_in_older_words_and_keys_is_read_in_those_of_today(tmp_path: Path) -> None:
    saved = yaml.safe_load(to_yaml(compose("quickstart", ["evaluate.texts=[/b.txt]"]).config))
    saved["trainer"]["precision"], saved["evaluate"]["text"] = "bf16-mixed", "/a.txt"
    write(tmp_path, yaml.safe_dump(saved), "config.yaml")
    config = compose(str(tmp_path)).config
    assert (config.trainer.precision, config.evaluate.texts) == ("bf16", ("/a.txt", "/b.txt"))
    saved["evaluate"]["text"] = None
    write(tmp_path, yaml.safe_dump(saved), "config.yaml")
    assert compose(str(tmp_path)).config.evaluate.texts == ("/b.txt",)
    check_finished(compose(str(tmp_path)).config, tmp_path)


def test_a_key_that_is_no_more_says_what_it_has_become(tmp_path: Path) -> None:
    mine = write(tmp_path, "evaluate: {text: a.txt}")
    for said in (refusal(None, "evaluate.text=a.txt"), refusal(mine)):
        assert "`evaluate.text" in said
        assert "`evaluate.texts=[FILE]`" in said
    assert mine in refusal(mine)


def test_settings_that_say_what_an_older_run_did_anyway_are_those_of_the_older_run() -> None:
    settings = {"weight": {"clip": 1.0, "tables": "exact", "planes": 1}, "seed": 3}
    assert without_older(settings) == {"weight": {"clip": 1.0}, "seed": 3}
    assert without_older({"weight": {"planes": 2}}) == {"weight": {"planes": 2}}
    assert without_older({"weight": {"tables": "int8"}}) == {"weight": {"tables": "int8"}}


@pytest.mark.slow
def test_a_group_chosen_for_a_saved_run_replaces_the_whole_group(tmp_path: Path) -> None:
    write(tmp_path, to_yaml(compose("quickstart", ["logger.project=mine"]).config), "config.yaml")
    config = compose(str(tmp_path), ["logger=csv"]).config
    assert (config.logger.kind, config.logger.project) == ("csv", "bitnet-train")


@pytest.mark.slow
def test_an_artefact_is_known_by_its_manifest_and_finds_its_run(tmp_path: Path) -> None:
    artefact = tmp_path / "artefact"
    artefact.mkdir()
    (artefact / "manifest.json").write_text("{}")
    alone = compose(str(artefact))
    assert (alone.target.kind, alone.config.path, alone.config.run.dir) == ("artefact", str(artefact), None)
    write(tmp_path, to_yaml(compose("quickstart", ["max_steps=7"]).config), "config.yaml")
    inside = compose(str(artefact))
    assert (inside.target.kind, inside.config.path) == ("artefact", str(artefact))
    assert (inside.config.run.dir, inside.config.trainer.max_steps) == (str(tmp_path), 7)


@pytest.mark.slow
def test_awkward_text_survives_being_saved(tmp_path: Path) -> None:
    prompt = 'a ${b} \\${c}: "d" # e\n'
    config = compose(None, [f"generate.prompt={prompt}"]).config
    write(tmp_path, to_yaml(config), "config.yaml")
    assert compose(str(tmp_path)).config.generate.prompt == prompt


def test_words_and_flags_of_a_call_are_not_saved() -> None:
    config = changed(compose("quickstart").config, {"quiet": True, "dry_run": True})
    assert {"quiet", "dry_run", "path"}.isdisjoint(yaml.safe_load(to_yaml(config)))


@dataclass
class Hidden:
    """A structured configuration, which Hydra builds as well."""

    _target_: str = "os.getcwd"


def test_a_third_party_logger_is_built_from_its_target(tmp_path: Path) -> None:
    words = ["logger.kind=custom", f"logger.custom._target_={CSV_LOGGER}", f"logger.custom.save_dir={tmp_path}"]
    logger = build_object(compose(None, words).config.logger.custom, "logger.custom")
    assert type(logger).__name__ == "CSVLogger"
    with pytest.raises(ConfigError, match="could not be built"):
        build_object({"_target_": CSV_LOGGER, "no_such_argument": 1}, "logger.custom")


@pytest.mark.parametrize(
    "spec",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "lightning.pytorch.loggers.csv_logs.os.system"},
        {"_target_": "lightning.pytorch.loggersX.CSVLogger"},
        {"_target_": CSV_LOGGER, "save_dir": {"_target_": "os.getcwd"}},
        {"_target_": CSV_LOGGER, "save_dir": [{"deep": {"_target_": "os.getcwd"}}]},
        {"_target_": CSV_LOGGER, "save_dir": ({"_target_": "os.getcwd"},)},
        {"_target_": CSV_LOGGER, "save_dir": [({"deep": ({"_target_": "os.getcwd"},)},)]},
        {"_target_": CSV_LOGGER, "_args_": ({"_target_": "os.getcwd"},)},
        {"_target_": CSV_LOGGER, "save_dir": OmegaConf.create({"_target_": "os.getcwd"})},
        {"_target_": CSV_LOGGER, "save_dir": OmegaConf.create([{"_target_": "os.getcwd"}])},
        {"_target_": CSV_LOGGER, "save_dir": Hidden()},
        {"_target_": CSV_LOGGER, "save_dir": {frozenset()}},
        {"save_dir": "."},
    ],
)
def test_nothing_off_the_allow_list_is_built_at_any_depth(spec: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="may only build"):
        build_object(spec, "logger.custom")


@pytest.mark.slow
def test_composition_works_from_an_installed_package(tmp_path: Path) -> None:
    """A wheel holds `configs/` and `recipes/` inside the package; the checkout must not be seen."""
    package = tmp_path / "site-packages" / "bitnet_train"
    source = Path(bitnet_train.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("configs", "recipes", "csrc", "__pycache__"))
    for name in ("configs", "recipes"):
        shutil.copytree(house() / name, package / name)
    code = (
        "import sys; from importlib.machinery import PathFinder\n"
        "sys.path.insert(0, sys.argv[1]); sys.meta_path.insert(0, PathFinder)  # before an editable install's finder\n"
        "from bitnet_train.config.compose import compose, to_yaml; from bitnet_train.config.layout import house\n"
        "assert str(house()) == sys.argv[1] + '/bitnet_train', house()\n"
        "sys.stdout.write(to_yaml(compose('quickstart', ['weight=ternary_row']).config))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(package.parent)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout) == to_dict(compose("quickstart", ["weight=ternary_row"]).config)


def test_every_bundled_recipe_is_found_beside_the_package() -> None:
    folder = house() / "recipes"
    files = [*folder.glob("*.yaml"), *folder.glob("baselines/*.yaml")]
    assert sorted(recipes()) == sorted(path.relative_to(folder).with_suffix("").as_posix() for path in files)


def test_a_recipe_that_was_edited_is_read_again_though_its_size_is_the_same(tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    for steps in (3, 4):
        recipe.write_text(yaml.safe_dump({"trainer": {"max_steps": steps}}))
        assert compose(str(recipe), ["model.source=tiny"]).config.trainer.max_steps == steps


def test_a_configuration_leaves_nothing_in_the_next_one() -> None:
    words = ["trainer.max_steps=7", "model.include=[a]", "weight.overrides=[{role: mlp, name: ternary}]"]
    before = to_yaml(compose("quickstart").config)
    other = compose("quickstart", words)
    other.config.weight.overrides[0]["name"] = "binary"
    other.origins.clear()
    with pytest.raises(ConfigError):
        compose("quickstart", ["trainer.max_steps=9", "trainer.log_every_steps=many"])
    assert to_yaml(compose("quickstart").config) == before
