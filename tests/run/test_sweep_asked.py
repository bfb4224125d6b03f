"""What a sweep is asked: refused before the first trial, kept with the sweep, and the same for whoever goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.config.layout import recipes
from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.run.sweep_asked import ASKED, read_asked, settled

RATES = "optimizer.lr=1e-4..1e-2"
MEASURED = "trainer.validate_every_steps=5"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer.lrr=1e-4..1e-2"], "Did you mean `optimizer.lr`?"),
        (["optimizer.lr=-1..1"], "`optimizer.lr=-1.0` (command line) is out of range"),
        (["trainer.batch_rows=1..8"], "`trainer.micro_rows=2` (recipes/quickstart.yaml) is more than"),
        (["weight=binary_row,ternary_rw"], "Did you mean `ternary_row`?"),
        (["optimizer.reach=1..5"], "`optimizer.reach=1.0` (command line) has no effect"),
        (["generate.prompt=a, b"], "would be the same training each time"),
        (["logger=none,csv"], "would be the same training each time"),
        (["run.dir=a,b"], "would be the same training each time"),
        ([RATES, "optimizer.lr=1e-3"], "`optimizer.lr` is given twice"),
        ([RATES, "run.dir=x"], "`run.dir` is set by the sweep"),
        ([RATES, "trainer.resume=auto"], "`trainer.resume` is set by the sweep"),
        ([RATES, "hydra/launcher=joblib"], "Hydra's multirun is not taken"),
        ([RATES, "+a=1"], "every word sets a key that exists"),
        ([], "There is nothing to try"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_the_first_trial(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_asked("quickstart", [*words, MEASURED])
    assert said in str(error.value)


def test_a_recipe_that_measures_no_held_out_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Add `trainer\.validate_every_steps=100`"):
        read_asked("quickstart", [RATES])
    text = tmp_path / "text.txt"
    text.write_text("a text")
    words = ["data=files", f"data.path={text}", "data.validation_fraction=0"]
    with pytest.raises(ConfigError, match=r"`data\.validation_fraction=0`"):
        read_asked("quickstart", [RATES, MEASURED, *words])


def test_a_trial_has_the_fixed_words_its_values_and_its_own_directory(tmp_path: Path) -> None:
    asked = read_asked("quickstart", [RATES, MEASURED, "planes=1,2", "trials=4", f"sweep.dir={tmp_path}"])
    assert asked.keys == ["optimizer.lr", "weight.planes"]
    assert asked.settings.trials == 4
    command = asked.command({"optimizer.lr": 0.002, "weight.planes": "2"}, tmp_path / "x")
    assert command == [
        *("quickstart", MEASURED, "optimizer.lr=0.002", "weight.planes=2"),
        *(f"run.dir={tmp_path / 'x'}", "trainer.resume=auto"),
    ]


def test_a_sweep_is_gone_on_with_by_its_folder_or_by_the_same_call_and_by_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    call = [RATES, MEASURED, f"sweep.dir={folder}"]
    asked, made = settled(read_asked("quickstart", [*call, "sweep.trials=4"]))
    assert made == folder
    again, there = settled(read_asked(str(folder), ["sweep.trials=6"]))
    assert (again.command({}, folder), again.keys, there) == (asked.command({}, folder), asked.keys, folder)
    assert again.settings.trials == 6
    assert read_asked(str(folder), []).settings.trials == 4
    settled(read_asked("quickstart", call))
    for other in ([f"{RATES[:-1]}1", *call[1:]], [*call, "sweep.sampler=random"], [*call, "data.packing=never"]):
        with pytest.raises(ConfigError, match="is a sweep with"):
            settled(read_asked("quickstart", other))
    (folder / ASKED).write_text("{}")
    with pytest.raises(FormatError, match=r"sweep\.json cannot be read"):
        read_asked(str(folder), [])


def test_a_recipe_file_is_kept_with_the_sweep(tmp_path: Path) -> None:
    own, folder = tmp_path / "own.yaml", tmp_path / "sweep"
    own.write_text(recipes()["quickstart"].read_text())
    call = [RATES, MEASURED, f"sweep.dir={folder}"]
    asked, _ = settled(read_asked(str(own), call))
    assert asked.recipe == str(folder / "own.yaml")
    own.write_text(own.read_text().replace("max_steps: 800", "max_steps: 700"))
    with pytest.raises(ConfigError, match="is not what this sweep began with"):
        settled(read_asked(str(own), call))
    assert settled(read_asked(str(folder), []))[0].config.trainer.max_steps == 800


def test_a_folder_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is no sweep, and not empty"):
        settled(read_asked("quickstart", [RATES, MEASURED, f"sweep.dir={tmp_path}"]))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_sweeps_without_a_folder_get_one_each(tmp_path: Path) -> None:
    asked = read_asked("quickstart", [RATES, MEASURED, f"run.root={tmp_path}"])
    folders = [settled(asked)[1] for _ in range(2)]
    assert len(set(folders)) == 2
    assert {folder.parent for folder in folders} == {tmp_path / "quickstart"}
    assert json.loads((folders[0] / ASKED).read_text())["ranges"] == {"optimizer.lr": "1e-4..1e-2"}
