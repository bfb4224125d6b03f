"""The grid, its runner and its tables: `scripts/ablate/run.py` and what it is made of."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from bitnet_train.run.starting_point import is_wanted
from scripts import module_command
from scripts.ablate.grid import read_grid
from scripts.ablate.run import chosen, configured, is_done, main, parse, runnable
from scripts.ablate.table import grid_table, task_table
from scripts.tables.recipes import recipe_table
from scripts.tables.results import PAGES, written

ROOT = Path(__file__).parents[2]
GRIDS = sorted((ROOT / "recipes" / "ablations").glob("*.yaml"))
SMALL = {
    "recipe": "quickstart",
    "tokens": 256,
    "common": ["data.context_tokens=64", "data.max_documents=8", "data.max_validation_rows=2"],
    "base": ["weight=binary_row", "trainer.batch_rows=2", "trainer.micro_rows=2"],
    "best": ["fine"],
    "levers": {
        "fine": {"what": "finer scales", "over": ["weight=binary_group128"]},
        "fast": {"what": "faster scales", "over": ["optimizer.scale_lr_factor=10"], "needs": "fine"},
        "half": {"what": "half the rows", "over": ["trainer.batch_rows=1", "trainer.micro_rows=1"]},
    },
    "baselines": {
        "onebit": {
            "what": "rows x inputs",
            "recipe": "baselines/onebit",
            "over": ["trainer.batch_rows=2", "trainer.micro_rows=2"],
        }
    },
}


@pytest.fixture
def grid_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL, sort_keys=False))
    return path


def test_a_grid_asks_for_every_lever_alone_added_and_left_out(grid_file: Path) -> None:
    trials = {trial.name: trial for trial in read_grid(grid_file).trials()}
    around = ["best", "best - fine", "best + fast", "best + half"]
    assert list(trials) == ["base", "base + fine", "base + fast", "base + half", *around, "baselines/onebit"]
    common, base = tuple(SMALL["common"]), tuple(SMALL["base"])
    assert trials["base + fine"].words == (*common, *base, "weight=binary_group128")
    assert trials["best - fine"].words == trials["base"].words
    assert trials["baselines/onebit"].words == (*common, *SMALL["baselines"]["onebit"]["over"])


def test_a_baseline_may_have_more_tokens(tmp_path: Path) -> None:
    path = tmp_path / "longer.yaml"
    path.write_text(yaml.safe_dump(SMALL | {"baselines": {"onebit": SMALL["baselines"]["onebit"] | {"times": 1.5}}}))
    tokens = {trial.name: trial.tokens for trial in read_grid(path).trials()}
    assert tokens == dict.fromkeys(tokens, SMALL["tokens"]) | {"baselines/onebit": 1.5 * SMALL["tokens"]}


def test_a_lever_that_needs_another_is_compared_with_that_one(grid_file: Path) -> None:
    trials = {trial.name: trial for trial in read_grid(grid_file).trials()}
    assert trials["base + fast"].words[-2:] == ("weight=binary_group128", "optimizer.scale_lr_factor=10")
    assert {name: trial.against for name, trial in trials.items()} == {
        "base": None,
        "base + fine": "base",
        "base + fast": "base + fine",
        "base + half": "base",
        "best": "base",
        "best - fine": "best",
        "best + fast": "best",
        "best + half": "best",
        "baselines/onebit": "best",
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lever": 1}, "unknown keys"),
        ({"best": ["finest"]}, "`best` names"),
        ({"levers": {"a": {"what": "", "over": [], "on": "b"}}, "best": []}, "lever `a` has unknown keys"),
        ({"levers": {"a": {"what": "", "over": [], "needs": "b"}}, "best": []}, "need a lever that `levers` lacks"),
    ],
)
def test_a_grid_that_cannot_be_meant_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(SMALL | change))
    with pytest.raises(SystemExit, match=told):
        read_grid(path)


@pytest.mark.slow
@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_every_trial_of_a_bundled_grid_composes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = list(read_grid(path).trials())
    assert runnable(trials)
    broken = [line for line in capsys.readouterr().out.splitlines() if ": the same as " not in line]
    assert broken == []


METHOD = ("weight", "activation", "adapter", "init", "blockwise", "loss", "schedule", "optimizer", "trainer")
LENGTH = {"trainer.max_steps", "trainer.max_tokens", "trainer.save_every_steps"}  # the grid's own, or changes no weight


@pytest.mark.slow
@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_no_trial_of_a_bundled_grid_takes_its_method_from_the_body_of_the_recipe(path: Path) -> None:
    """Groups chosen in words do not displace keys of a recipe's body, so a trial that is silent about one inherits it:
    a later change of the recipe would change what the trial measures, under the same name. A grid without a best asks
    about its recipe as it is."""
    grid = read_grid(path)
    if not grid.best:
        return
    body = yaml.safe_load((ROOT / "recipes" / f"{grid.recipe}.yaml").read_text())
    set_there = {f"{part}.{key}" for part in METHOD for key in body.get(part, {})} - LENGTH
    for trial in (trial for trial in grid.trials() if trial.recipe == grid.recipe):
        config = configured(trial.recipe, trial.words)
        idle = {key for key in set_there if key.startswith("blockwise.") and not config.blockwise.enabled}
        if config.init.latents == "copy":
            idle.add("init.calibration_rows")
        if config.trainer.short_row_tokens is None:
            idle.add("trainer.short_row_fraction")
        assert set_there - idle <= {word.partition("=")[0] for word in trial.words}, trial.name


def test_a_lever_that_stands_alone_is_not_tried_with_the_best(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    levers = {name: {"what": name, "over": ["seed=1"], "alone": name == "b"} for name in ("a", "b", "c")}
    path.write_text(yaml.safe_dump({"recipe": "quickstart", "tokens": 8, "best": ["a"], "levers": levers}))
    names = [trial.name for trial in read_grid(path).trials()]
    assert names == ["base", "base + a", "base + b", "base + c", "best", "best - a", "best + c"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the rows of one trial, those after two more were asked for, and when their file was written, twice."""
    folder = tmp_path_factory.mktemp("measured")
    grid, out, text = folder / "small.yaml", folder / "rows.json", folder / "other.txt"
    grid.write_text(yaml.safe_dump(SMALL, sort_keys=False))
    text.write_text("The river is wide, and the boat is slow. " * 40)
    words = [str(grid), "--seeds", "3", "--out", str(out), "--work", str(folder / "work"), "--text", str(text)]
    words += ["--window", "64", "--only", "base"]
    found: dict[str, Any] = {"folder": folder}
    for calls in (words, [*words, "base + half", "onebit"], [*words, "base + half", "onebit"]):
        assert main(calls) == 0
        found.setdefault("texts", []).append(out.read_text())
        found.setdefault("written", []).append(out.stat().st_mtime_ns)
    return found


@pytest.mark.slow
def test_a_grid_keeps_a_row_a_trial_and_goes_on_where_it_stopped(measured: dict[str, Any]) -> None:
    (first,) = json.loads(measured["texts"][0])["rows"]
    assert (first["trial"], first["seed"], first["steps"], first["tokens"]) == ("base", 3, 2, 2 * 2 * 64)
    for where in ("in_domain", "out_of_domain"):
        figures = first[where]
        assert figures["ratio"] == pytest.approx(figures["perplexity"] / figures["full_precision"])
        assert figures["kl"] > 0
        assert 0 <= figures["top1_agreement"] < 1
    assert first["out_of_domain"]["text"] == "other.txt"
    assert 0 < first["fit_seconds"] <= first["seconds"]
    assert str(measured["folder"]) not in measured["texts"][0]

    rows = json.loads(measured["texts"][1])["rows"]
    assert [row["trial"] for row in rows] == ["base", "base + half", "baselines/onebit"]
    assert rows[0] == first, "a finished trial is kept, not run again"
    assert [row for row in rows if "error" in row] == []
    assert measured["written"][2] == measured["written"][1], "nothing was left to do"


@pytest.mark.slow
def test_smaller_steps_are_more_steps_so_that_tokens_stay_equal(measured: dict[str, Any]) -> None:
    rows = {row["trial"]: (row["steps"], row["tokens"]) for row in json.loads(measured["texts"][1])["rows"]}
    assert rows["base"] == (2, 256)
    assert rows["base + half"] == (4, 256)


def test_the_command_line_changes_the_tokens_of_every_trial(grid_file: Path) -> None:
    options = parse([str(grid_file), "--tokens", "512"])
    trials = chosen(read_grid(grid_file), options)
    assert {trial.tokens for trial in trials} == {512}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes as Linux shows them")
def test_a_grid_that_is_ended_ends_its_trial(grid_file: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    words = [str(grid_file), "--out", str(tmp_path / "rows.json"), "--work", str(work)]
    grid = subprocess.Popen([*module_command("scripts.ablate.run"), *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    ends = time.monotonic() + 100
    while not processes_about(work / f"trial-{grid.pid}" / "task.json"):
        assert time.monotonic() < ends, "no trial began"
        assert grid.poll() is None, "the grid ended on its own"
        time.sleep(0.05)
    grid.terminate()
    assert grid.wait(timeout=30) == 130
    assert processes_about(work) == []


@pytest.mark.slow
def test_the_task_grid_starts_from_a_model_that_is_1_bit_already() -> None:
    trials = read_grid(ROOT / "recipes" / "ablations" / "task.yaml").trials()
    for trial in trials:
        assert not is_wanted(configured(trial.recipe, trial.words)), trial.name


def processes_about(path: Path) -> list[str]:
    """The processes with `path` in their command line, this one's children of any depth and others."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(path) in line]


@pytest.mark.slow
def test_a_failed_trial_keeps_its_reason_and_no_path_of_this_machine(
    grid_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.json"
    words = [str(grid_file), "--only", "base", "--seeds", "0", "--out", str(out), "--work", str(tmp_path / "work")]
    words += ["--set", f"model.source={tmp_path}/nothing.gguf"]
    assert main(words) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert "ConversionError" in row["error"]
    assert str(tmp_path) not in out.read_text()
    assert "model.source=nothing.gguf" in row["overrides"]
    wanted = {key: row[key] for key in row if key != "error"}
    assert is_done(wanted, [row], retry=False)
    assert not is_done(wanted, [row], retry=True)
    assert is_done({**wanted, "overrides": ["model.source=tiny", *wanted["overrides"]]}, [row], retry=False)
    assert not is_done({**wanted, "asked_tokens": 3}, [row], retry=False)


def row(trial: str, seed: int, perplexity: float, kind: str = "alone", against: str | None = "base") -> dict[str, Any]:
    figures = {"perplexity": perplexity, "full_precision": 10.0, "ratio": perplexity / 10}
    figures |= {"kl": 0.5, "top1_agreement": 0.5}
    who = {"trial": trial, "seed": seed, "kind": kind, "against": against, "what": "a lever", "recipe": "quickstart"}
    cost = {"tokens": 1000, "seconds": 2.0, "cpu_seconds": 1.0, "peak_mb": 3.0}
    made_by = {"cpu": "a CPU", "threads": 1}
    return {**who, **cost, "in_domain": figures, "out_of_domain": None, "made_by": made_by}


def table(tmp_path: Path, rows: list[dict[str, Any]], *kinds: str) -> list[str]:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"rows": rows}))
    return grid_table(path, kinds, "ablate")


def test_a_table_gives_means_spreads_and_differences_seed_by_seed(tmp_path: Path) -> None:
    rows = [row("base", 0, 20.0, "base", None), row("base", 1, 30.0, "base", None)]
    rows += [row("base + good", 0, 18.0), row("base + good", 1, 27.3), row("base + bad", 0, 22.0)]
    rows += [row("base + bad", 1, 33.3), row("base + nothing", 0, 20.2), row("base + nothing", 1, 29.7)]
    lines = table(tmp_path, rows, "base", "alone")
    cells = {line.split("**")[1]: [cell.strip() for cell in line.split("|")[2:]] for line in lines if "**" in line}
    assert cells["base"][:3] == ["2.500 ± 0.707", "", ""]
    assert cells["base + good"][1:3] == ["-9.5 ± 0.7 %", "helps"]
    assert cells["base + bad"][1:3] == ["+10.5 ± 0.7 %", "hurts"]
    assert cells["base + nothing"][1:3] == ["+0.0 ± 1.4 %", "no difference"]
    assert lines[-1] == "Tokens trained on: 1,000. a CPU, 1 threads."


def test_trials_on_other_held_out_text_are_not_compared(tmp_path: Path) -> None:
    rows = [row("base", seed, 20.0, "base", None) for seed in (0, 1)]
    rows += [row("base + own text", seed, 15.0) for seed in (0, 1)]
    for own in rows[2:]:
        own["in_domain"] |= {"full_precision": 7.5, "ratio": 2.0}
    (line,) = (line for line in table(tmp_path, rows, "alone") if "own text" in line)
    assert [cell.strip() for cell in line.split("|")[2:5]] == ["2.000 ± 0.000", "", ""]


def test_a_table_keeps_failures_and_says_how_to_measure_what_is_missing(tmp_path: Path) -> None:
    failed = {key: value for key, value in row("base + odd", 0, 1.0).items() if key != "in_domain"} | {"error": "a | b"}
    lines = table(tmp_path, [failed], "alone")
    assert "failed: a / b" in lines[2]
    assert lines[2].count("|") == lines[0].count("|")
    assert table(tmp_path, [], "alone") == ["Not measured yet: `ablate`."]


def test_a_bar_in_a_description_does_not_part_a_cell(tmp_path: Path) -> None:
    lines = table(tmp_path, [row("base + size", 0, 18.0) | {"what": "mean|W|"}], "alone")
    assert r"mean\|W\|" in lines[2]
    assert lines[2].replace(r"\|", "").count("|") == lines[0].count("|")


def test_the_pages_hold_what_the_result_files_say() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text()
        assert written(page, text) == text, "run `python -m scripts.tables.results`"
        assert written(page, text.replace("<!-- /r", "x<!-- /r", 1)) == text


def test_a_recipe_is_told_by_text_where_it_was_compared_with_its_original(tmp_path: Path) -> None:
    result = json.loads((ROOT / "recipes" / "results" / "quickstart.json").read_text())
    text = {"tokens": 1000, "window_tokens": 64, "full_precision": 10.0, "trained": 25.0, "kl": 0.5}
    compared = {**text, "name": "book", "ratio": 2.5, "top1_agreement": 0.5}
    alone = {**text, "name": "other", "full_precision": None, "ratio": None, "kl": None, "top1_agreement": None}
    (tmp_path / "r.json").write_text(json.dumps(result | {"texts": [compared, alone]}))
    lines = recipe_table(tmp_path, "")
    assert lines[-1] == "| `quickstart` | book | 1,000 in windows of 64 | 10.00 | 25.00 | 2.50 | 0.500 | 50.0 % |"
    assert lines[-1].count("|") == lines[-2].count("|")
    (tmp_path / "r.json").write_text(json.dumps(result | {"texts": []}))
    assert len(recipe_table(tmp_path, "")) == len(lines) - 6


def test_a_task_table_shares_out_what_the_best_full_training_gains(tmp_path: Path) -> None:
    def trained(trial: str, adapter: str, nats: float) -> dict[str, Any]:
        made = row(trial, 0, 100.0 * math.exp(-nats), "baseline", None)
        made["in_domain"]["full_precision"] = 100.0
        return {**made, "what": trial, "overrides": ["adapter=lora_inside", f"adapter={adapter}"]}

    rows = [trained("full low", "none", 0.5), trained("full", "none", 2.0), trained("rank", "lora_inside", 1.9)]
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    lines = task_table(tmp_path / "rows.json", "ablate")
    cells = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:5] for line in lines[2:5]}
    assert cells["full"] == ["100.00", f"{100 * math.exp(-2):.2f}", "2.000", "100.0 %"]
    assert cells["rank"][2:] == ["1.900", "95.0 %"]
    assert task_table(tmp_path / "none.json", "ablate") == ["Not measured yet: `ablate`."]
