"""A run that is continued, and every verb after it, holds what is asked for against what was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bitnet_train.__main__ import main
from bitnet_train.config.check import flatten
from bitnet_train.config.compose import compose, to_dict
from bitnet_train.config.continued import changes, class_of, has_moved
from bitnet_train.config.suggest import known_keys
from bitnet_train.config.target import read_yaml
from bitnet_train.train.loop.checkpoint_manifest import read_manifest
from bitnet_train.train.loop.schedules import lr_factor
from tests.fixtures.small_runs import small

WORDS = "The quick brown fox jumps over the lazy dog, and the dog says nothing at all about it. " * 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "words.txt").write_text(WORDS)
    data = ["data=files", f"data.path={folder / 'words.txt'}"]
    assert main(["train", "quickstart", "--quiet", *small(folder / "run", *data)]) == 0
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def recorded(run: Path, name: str) -> Any:
    return flatten(read_yaml(run / "config.yaml"))[name]


def without_settings(run: Path) -> None:
    """Make the checkpoints those of a version that kept no settings in them, and sealed nothing."""
    for path in (run / "checkpoints").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        for name in ("settings", "run", "seal"):
            del manifest[name]
        path.write_text(json.dumps(manifest | {"schema": 1}))


def logged(run: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (run / "metrics.jsonl").open() if f'"{name}"' in line]


def test_every_key_is_in_a_class() -> None:
    classes = {name: class_of(name) for name in known_keys()}
    assert {name for name in classes if classes[name] == "call"} == {
        "recipe",
        "run.root",
        "run.name",
        "run.dir",
        "trainer.resume",
        "export.force",
    }
    assert classes["activation.name"] == classes["trainer.batch_rows"] == classes["data.path"] == "fixed"
    assert classes["optimizer.lr"] == classes["schedule.lr"] == classes["trainer.max_steps"] == "trained"
    assert classes["trainer.num_threads"] == classes["export.format"] == "verbs"


FIXED = [
    ("activation=int4", "activation.name: int8 -> int4"),
    ("weight.name=ternary", "weight.name: binary -> ternary"),
    ("adapter.train_norms=false", "adapter.train_norms: true -> false"),
    ("data.context_tokens=32", "data.context_tokens: 64 -> 32"),
    ("loss.ce=0.5", "loss.ce: 0.0 -> 0.5"),
    ("trainer.batch_rows=4", "trainer.batch_rows: 2 -> 4"),
    ("trainer.seed=1", "trainer.seed: 0 -> 1"),
]


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False], ids=["kept in the checkpoint", "in config.yaml alone"])
@pytest.mark.parametrize(("word", "said"), FIXED, ids=[word for word, _ in FIXED])
def test_what_a_run_was_trained_under_is_not_changed_by_continuing_it(
    run: Path, word: str, said: str, kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if not kept:
        without_settings(run)
    before = (run / "config.yaml").read_text()
    assert main(["train", str(run), word, "trainer.max_steps=9"]) == 2
    error = capsys.readouterr().err
    assert f"\n  {said}\n" in error
    assert "another `run.dir`" in error
    assert "max_steps" not in error
    assert (run / "config.yaml").read_text() == before


@pytest.mark.slow
def test_a_recipe_started_again_in_the_same_run_directory_is_held_against_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["data=files", f"data.path={recorded(run, 'data.path')}", "trainer.resume=auto"]
    assert main(["train", "quickstart", "--quiet", *small(run, *data)]) == 0
    assert main(["train", "quickstart", *small(run, *data, "activation=sign")]) == 2
    assert "activation.name: int8 -> sign" in capsys.readouterr().err


@pytest.mark.slow
def test_how_a_run_multiplies_is_kept_as_it_was_settled_and_not_changed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = json.loads((run / "checkpoints" / "step-000002" / "manifest.json").read_text())["settings"]
    settled = kept["trainer.products"]
    assert settled in ("float", "forward", "integer"), "what `auto` came to"
    other = "float" if settled == "integer" else "integer"
    assert main(["train", str(run), f"trainer.products={other}", "trainer.max_steps=9"]) == 2
    assert f"trainer.products: {settled} -> {other}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "run"])
def test_a_checkpoint_of_another_run_is_refused_before_anything_is_read(
    trained: Path, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained / "checkpoints" / "step-000002"
    words = ["data=files", f"data.path={recorded(trained, 'data.path')}", f"trainer.resume={checkpoint}"]
    assert main([verb, "quickstart", *small(tmp_path / "other", *words)]) == 1
    assert "step-000002 is a checkpoint of another run" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "run"])
def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_again(
    run: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (run / "checkpoints").glob("step-*/manifest.json"):
        path.write_text(path.read_text().replace('"step": 2', '"step": 1').replace('"step": 1,', '"step": 13,'))
    before = (run / "metrics.jsonl").read_text()
    assert main([verb, str(run), "--quiet"]) == 1
    assert "can be used, and the run does not start again by itself" in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_text() == before


@pytest.mark.slow
def test_states_that_are_all_damaged_are_refused_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = list((run / "checkpoints").glob("step-*/state.pt"))
    for path in states:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert main(["train", str(run), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert f"None of the {len(states)} checkpoints" in error
    assert "its SHA-256 differs" in error


@pytest.mark.slow
def test_an_edited_config_yaml_is_held_against_the_checkpoint_by_every_verb(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("name: int8", "name: int4"))
    for verb in ("train", "merge", "export", "validate", "evaluate", "generate", "bench", "convert"):
        assert main([verb, str(run)]) == 2, verb
        assert "activation.name: int8 -> int4" in capsys.readouterr().err, verb


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["merge", "export", "validate", "evaluate", "generate", "bench"])
@pytest.mark.parametrize("word", ["activation=none", "optimizer.lr=1"])
def test_a_verb_that_trains_nothing_refuses_settings_of_training(
    trained: Path, verb: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, str(trained), word]) == 2
    assert "trains nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_other_rates_and_lengths_are_said_recorded_and_used(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["optimizer.lr=1e-5", "optimizer.weight_decay=0.1", "schedule.lr=constant", "trainer.max_steps=5"]
    assert main(["train", str(run), *words, "export.embedding=int8", "trainer.resume=auto"]) == 0
    told = capsys.readouterr()
    said = told.out
    assert f"{said}{told.err}".count("max_steps") == 1, "told once, and no warning (which would be an error here)"
    for line in ("optimizer.lr: 0.002 -> 1e-05", "trainer.max_steps: 2 -> 5", "export.embedding: exact -> int8"):
        assert f"  {line}\n" in said
    assert "From step 2 on" in " ".join(said.split())
    assert (recorded(run, "optimizer.lr"), recorded(run, "trainer.max_steps")) == (1e-5, 5)
    assert (recorded(run, "export.embedding"), recorded(run, "trainer.resume")) == ("int8", "never")
    assert read_manifest(run / "checkpoints" / "step-000005")["settings"]["optimizer.lr"] == 1e-5
    assert logged(run, "lr")[-3:] == [1e-5] * 3
    changed = json.loads((run / "facts" / "continued.json").read_text())["changes"]
    assert [change["step"] for change in changed] == [2]
    assert changed[0]["changed"]["optimizer.weight_decay"] == [0.0, 0.1]
    assert main(["train", str(run)]) == 0
    assert "other settings" not in capsys.readouterr().out
    assert main(["merge", str(run), "--quiet"]) == 0


@pytest.mark.slow
def test_a_config_yaml_that_was_cut_is_written_anew_by_the_call_that_began_the_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run / "config.yaml"
    whole, data = config.read_text(), [f"data.path={recorded(run, 'data.path')}", "data=files"]
    for left in ("", whole[: whole.index("optimizer:")]):
        config.write_text(left)
        for verb in ("train", "merge", "show"):
            assert main([verb, str(run)]) == 2
            assert "Bring a copy of it back" in capsys.readouterr().err
    assert main(["train", "quickstart", *small(run, *data, "trainer.resume=auto", "activation=int4")]) == 2
    assert "activation.name: int8 -> int4" in capsys.readouterr().err
    assert main(["train", "quickstart", "--quiet", *small(run, *data, "trainer.resume=auto")]) == 0
    assert main(["merge", str(run), "--quiet"]) == 0
    assert flatten(read_yaml(config)).keys() == flatten(yaml.safe_load(whole)).keys()


@pytest.mark.slow
def test_an_edited_rate_is_told_against_the_checkpoint_used_and_recorded(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("  lr: 0.002\n", "  lr: 1.0e-05\n"))
    assert main(["train", str(run), "trainer.max_steps=3", "optimizer.betas=[0.8,0.9]"]) == 0
    told = capsys.readouterr()
    assert "was edited after its run wrote it" in told.err
    assert "  optimizer.lr: 0.002 -> 1e-05\n" in told.out
    assert json.loads((run / "facts" / "continued.json").read_text())["changes"][0]["changed"]["optimizer.lr"]
    state = torch.load(run / "checkpoints" / "step-000003" / "state.pt", weights_only=True)
    groups = state["optimizer_states"][0]["param_groups"]
    at_step_3 = 1e-5 * lr_factor(2, 3, compose(str(run)).config.schedule)
    assert {(group["peak_lr"], group["lr"], *group["betas"]) for group in groups} == {(1e-5, at_step_3, 0.8, 0.9)}
    assert main(["train", str(run)]) == 0
    assert "edited after" not in "".join(capsys.readouterr())


@pytest.mark.slow
def test_the_whole_way_goes_on_too_and_records_nothing_but_what_was_asked_for(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoints").rename(run / "earlier")
    assert main(["run", str(run), "trainer.max_tokens=300"]) == 0
    assert "trainer.max_tokens: null -> 300\n" in capsys.readouterr().out
    again = flatten(read_yaml(run / "config.yaml"))
    assert (again["export.force"], again["trainer.max_steps"], again["trainer.max_tokens"]) == (False, 2, 300)
    assert main(["run", str(run)]) == 0
    assert "other settings" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_without_checkpoints_is_told_anew_and_records_it(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    assert main(["train", str(run), "--quiet", "activation=int4"]) == 0
    assert recorded(run, "activation.name") == "int4"
    assert main(["merge", str(run), "--quiet"]) == 0


@pytest.mark.slow
def test_a_run_of_before_settings_were_kept_goes_on(run: Path) -> None:
    without_settings(run)
    assert main(["train", str(run), "--quiet", "trainer.max_steps=3"]) == 0
    assert read_manifest(run / "checkpoints" / "step-000003")["settings"]["activation.name"] == "int8"


def test_keys_that_came_after_a_run_was_written_are_taken_as_it_trained(tmp_path: Path) -> None:
    saved = to_dict(compose("quickstart").config)
    for section, key in (("weight", "tables"), ("data", "packing")):
        del saved[section][key]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    config = compose(str(tmp_path)).config
    assert (config.weight.tables, config.data.packing) == ("exact", "never")
    assert compose(str(tmp_path), ["weight.tables=int8"]).config.weight.tables == "int8"


@pytest.mark.slow
def test_text_that_was_moved_is_found_again_and_other_text_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    (tmp_path / "here" / "words.txt").write_text(WORDS)
    words = ["data=files", f"data.path={tmp_path / 'here' / 'words.txt'}"]
    run = tmp_path / "run"
    assert main(["train", "quickstart", "--quiet", *small(run, *words)]) == 0
    moved = shutil.copy(tmp_path / "here" / "words.txt", tmp_path / "there" / "words.txt")
    assert main(["train", str(run), f"data.path={moved}"]) == 2
    (tmp_path / "here" / "words.txt").unlink()
    assert main(["train", str(run), f"data.path={moved}"]) == 0
    assert "there/words.txt" in "".join(capsys.readouterr().out.split())
    assert recorded(run, "data.path") == str(moved)
    assert main(["merge", str(run), "--quiet"]) == 0


def test_two_ways_to_write_a_value_are_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recorded = {"data.path": str(tmp_path / "a.txt"), "trainer.precision": "bf16", "optimizer.lr": 1}
    asked = {"data.path": "a.txt", "trainer.precision": "auto", "optimizer.lr": 1.0, "model.source": "x"}
    assert changes(recorded, asked, "fixed", "trained") == {}
    assert changes(recorded, {"data.path": "b.txt"}, "fixed") == {"data.path": (str(tmp_path / "a.txt"), "b.txt")}
    assert not has_moved("data.path", ("a.txt", "b.txt"))


@pytest.mark.slow
def test_a_dry_run_is_refused_as_the_run_would_be(trained: Path) -> None:
    assert main(["train", str(trained), "--dry-run", "activation=int4"]) == 2
    assert compose(str(trained)).config.activation.name == "int8"
