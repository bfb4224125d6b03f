"""`bitnet-train report` and the report that every run writes: while it trains, interrupted, resumed, finished."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback

from bitnet_train.__main__ import main
from bitnet_train.train.loop import samples as samples_module
from bitnet_train.verbs import train as train_module
from tests.fixtures.report_runs import write_run
from tests.fixtures.small_runs import facts_of, small
from tests.fixtures.tiny_run import DieAt
from tests.report.test_run_document import plots

STEPS, LOOK_AT, END_AT = 6, 2, 4
PROMPT = "import os"
WORDS = (f"trainer.max_steps={STEPS}", f"generate.prompt={PROMPT}", "debug.enabled=true", "debug.every_steps=2")


class Look(Callback):
    """Keeps the report as it is after a step."""

    def __init__(self, root: Path) -> None:
        self.root, self.page = root, ""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if pl_module.step == LOOK_AT:
            assert main(["report", str(self.root), "--quiet"]) == 0
            self.page = (self.root / "report.html").read_text()


@dataclass
class Way:
    """A run that was interrupted and resumed: its pages on the way, and what it logged."""

    root: Path
    running: str
    interrupted: str
    finished: str


def losses(root: Path) -> list[float]:
    rows = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def samples(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "samples.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Way:
    root = tmp_path_factory.mktemp("way") / "run"
    look, own = Look(root), train_module.watching
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples_module, "ALWAYS_S", 1000.0)  # a machine of two cores may be about something else
        patch.setattr(samples_module, "MOST_S", 1000.0)
        patch.setattr(train_module, "watching", lambda *of: [*own(*of), look, DieAt(END_AT, signal.SIGTERM)])
        assert main(["train", "quickstart", *small(root, *WORDS, "trainer.samples=4")]) == 128 + signal.SIGTERM
        interrupted = (root / "report.html").read_text()
        patch.setattr(train_module, "watching", own)
        assert main(["train", str(root), "--quiet"]) == 0
    return Way(root, look.page, interrupted, (root / "report.html").read_text())


@pytest.mark.slow
def test_a_running_an_interrupted_and_a_finished_run_each_say_where_they_stand(way: Way) -> None:
    assert f"at step {LOOK_AT} of {STEPS}" in way.running
    assert ">running</b>" in way.running
    assert ">interrupted</b>" in way.interrupted
    assert f"checkpoint is of step {END_AT + 1}" in way.interrupted
    assert f"</b> {STEPS} steps of training" in way.finished


@pytest.mark.slow
def test_figures_of_the_pages_are_those_of_the_files(way: Way) -> None:
    logged = losses(way.root)
    assert len(logged) == STEPS
    for page, reached in ((way.running, LOOK_AT), (way.interrupted, END_AT + 1), (way.finished, STEPS)):
        (drawn,) = (plot for title, plot in plots(page).items() if title.startswith("Loss"))
        values = [value for value in drawn["lines"][0]["values"] if value is not None]
        assert values == pytest.approx(logged[:reached], rel=1e-6)
    trained = facts_of(way.root, "train")
    assert f"{trained['tokens_per_s']:,.0f} tok/s" in way.finished
    assert f"{trained['trainable_parameters']:,} of {trained['parameters']:,} parameters" in way.finished
    assert "model.layers.*.mlp.down_proj" in way.finished
    assert "trainer.max_steps</th>" in way.finished
    assert "What is missing" not in way.finished


@pytest.mark.slow
def test_texts_are_written_once_a_step_over_a_resume(way: Way) -> None:
    written = samples(way.root)
    assert [each["step"] for each in written] == [0, 2, 4, STEPS]
    assert all(each["prompt"] == PROMPT and each["text"] and each["seconds"] > 0 for each in written)
    assert way.finished.count("<h4>step ") == len(written)


@pytest.mark.slow
def test_a_run_that_went_the_whole_way_shows_all_that_its_stages_wrote(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(finished), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["runs"]
    assert told == {"run": str(finished), "status": "trained", "missing": []}
    page, result = (finished / "report.html").read_text(), facts_of(finished, "run")
    assert (finished / "evaluation.html").is_file()
    for figure in (
        f"{result['perplexity']['ratio']:.2f}x",
        f"{result['size']['folder_bytes'] / 1e6:.2f} MB",
        ">passed<",
    ):
        assert figure in page, figure
    for level in facts_of(finished, "validate")["levels"]:
        assert level["name"] in page
    for title in ("Quality", "Training", "What it writes", "Size", "Validation", "Layers", "Configuration"):
        assert f"<h2>{title}</h2>" in page


def test_several_runs_are_compared_in_the_first_or_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", "optimizer.lr=0.01")
    assert main(["report", str(one), str(two)]) == 0
    page = (one / "report_compare.html").read_text()
    assert "optimizer.lr" in page
    assert f"Report: {one / 'report_compare.html'}" in capsys.readouterr().out
    assert main(["report", str(one), f"report.to={tmp_path / 'page.html'}", "--quiet"]) == 0
    assert "<h1>quickstart</h1>" in (tmp_path / "page.html").read_text()
    assert not (one / "report.html").exists()


def test_what_differs_from_the_recipe_is_shown_and_no_secret(tmp_path: Path) -> None:
    secret = "hf_plantedSecret0123456789abcdef"
    root = write_run(tmp_path / "run", "optimizer.lr=0.0123", f"generate.prompt=my {secret}")
    assert main(["report", str(root), "--quiet"]) == 0
    page = (root / "report.html").read_text()
    assert re.search(r"optimizer\.lr</th><td[^>]*>[^<]+</td><td[^>]*>0.0123</td>", page)
    assert "keys differ from the recipe quickstart" in page
    config = page[page.index("<h2>Configuration") :]
    assert secret not in config


def test_a_damaged_configuration_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_run(tmp_path / "run")
    text = (root / "config.yaml").read_text()
    for cut in ("", text[: len(text) // 2], "[1, 2", "recipe: [quickstart]\nrun: {}\n"):
        (root / "config.yaml").write_text(cut)
        assert main(["report", str(root)]) == 0
        assert "Training" in (root / "report.html").read_text()
    (root / "config.yaml").write_text(text[: len(text) // 2])
    assert main(["report", str(root)]) == 0
    assert "missing: config.yaml is not shown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name a run, or several to compare"),
        (["quickstart"], "`quickstart` is a recipe, and a report is made of a run"),
        (["EMPTY"], "is no run directory"),
        (["RUN", "RUN"], "is named twice"),
        (["RUN/facts"], "lies inside a run. Name the run"),
        (["RUNN"], "Did you mean"),
        (["RUN", "report.to=EMPTY"], "is a folder"),
        (["RUN", "trainer.max_steps=3"], "has no effect"),
    ],
)
def test_what_is_no_run_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "RUN" / "facts").mkdir(parents=True)
    places = [word if word == "quickstart" or word.startswith("trainer") else _in(tmp_path, word) for word in words]
    assert main(["report", *places]) == 2
    assert said in capsys.readouterr().err


def _in(folder: Path, word: str) -> str:
    key, equals, name = word.rpartition("=")
    return f"{key}{equals}{folder / name}"
