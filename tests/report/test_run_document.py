"""The report of a run, from its files alone: every figure is one of them, and no damage of them ends it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.report.compare import compare_document, names_of
from bitnet_train.report.html import render_html
from bitnet_train.report.run_document import run_document
from bitnet_train.report.run_files import LAYERS_FILE, METRICS_FILE, SAMPLES_FILE, RunFiles, Worker, read_run
from bitnet_train.report.run_status import status_of
from bitnet_train.train.loop.diagnostics import DEBUG_FILE
from bitnet_train.train.loop.samples import SAMPLES_FILE as WRITTEN_SAMPLES
from bitnet_train.train.trackers.tracking import METRICS_FILE as WRITTEN_METRICS
from tests.fixtures.report_runs import HOSTILE, LAYERS, metrics, write_facts, write_lines, write_run
from tests.report.test_report import Tags, on_disk

WRONG: tuple[Any, ...] = ("x", [], {}, -1, None, 10**400, float("nan"), True)


def page_of(run: RunFiles) -> str:
    page = render_html(run_document(run))
    Tags().feed(re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))
    return page


def plots(page: str) -> dict[str, dict[str, Any]]:
    """Return the points of each picture, by its title."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', page)
    return {plot["title"]: plot for plot in map(json.loads, found)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_run(tmp_path_factory.mktemp("runs") / "mine")
    write_facts(root, "evaluate", **on_disk())
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "mine")


def test_names_of_files_are_those_that_training_writes() -> None:
    assert (METRICS_FILE, SAMPLES_FILE, LAYERS_FILE) == (WRITTEN_METRICS, WRITTEN_SAMPLES, DEBUG_FILE)


def test_every_figure_of_the_page_is_one_of_the_files(root: Path) -> None:
    run = read_run(root)
    page = page_of(run)
    assert run.faults == ()
    for figure in ("trained", "60 steps", "614 tok/s", "3.00 MB", "4.00x", "12.0 MB", "3.17x", "84.12", "passed"):
        assert figure in page, figure
    for part in ("binary per row", "A note.", "64 x 128", "self):", "<td>2.12</td>", "Popcount", "mlp.down_proj"):
        assert part in page, part
    drawn, logged = plots(page), metrics(60)
    (held_out,) = drawn["Held-out perplexity"]["lines"]
    expected = [row["val_perplexity"] for row in logged if "val_perplexity" in row]
    assert held_out["values"] == pytest.approx(expected, rel=1e-6)
    trained, validated = drawn["KL to the original, nats a token; it is the whole loss"]["lines"]
    assert [value for value in trained["values"] if value is not None] == pytest.approx(
        [row["kl"] for row in logged if "kl" in row], rel=1e-6
    )
    assert [value for value in validated["values"] if value is not None][-1] == pytest.approx(logged[-2]["val_kl"])
    assert {
        "Learning rate",
        "Gradient norm, before clipping",
        "Signs flipped since the start, share of codes",
        "Sparsity, share, mean of the layers",
    } <= {*drawn}


def test_a_figure_that_is_not_known_here_has_a_picture_too_and_what_only_counts_has_none(root: Path) -> None:
    write_lines(root / METRICS_FILE, [{"step": at, "loss": 1 / at, "my_term": at / 7, "tokens": at} for at in (1, 2)])
    assert set(plots(page_of(read_run(root)))) >= {"my term", "Loss, weighted sum of its terms"}
    assert "tokens" not in plots(page_of(read_run(root)))


def test_a_folder_with_a_configuration_alone_shows_no_figure(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("recipe: none\n")
    run = read_run(tmp_path)
    document = run_document(run)
    assert document.tiles == ()
    assert [section.title for section in document.sections] == ["Machine and versions"]
    assert status_of(run).word == "not trained"


def test_an_interrupted_run_says_where_it_stopped_and_how_it_goes_on(root: Path) -> None:
    (root / "facts" / "train.json").unlink()
    write_lines(root / METRICS_FILE, metrics(60)[:42])
    (root / "checkpoints" / "step-000030").mkdir(parents=True)
    (root / "checkpoints" / "step-000030" / "manifest.json").write_text("{}")
    status = status_of(read_run(root))
    assert (status.word, status.mood) == ("interrupted", "bad")
    assert "at step 32 of 60" in status.said
    assert "checkpoint is of step 30" in status.said


def test_a_run_that_is_held_is_running_until_its_stage_has_ended(root: Path) -> None:
    now = (root / "facts" / "train.json").stat().st_mtime_ns
    at_work = read_run(root, worker=Worker("bitnet-train train", "12:00", now + 1))
    done = read_run(root, worker=Worker("bitnet-train train", "12:00", now - 1))
    assert (status_of(at_work).word, status_of(done).word) == ("running", "trained")
    assert "bitnet-train train, since 12:00 at step 60 of 60" in page_of(at_work)


def test_an_error_is_told_until_a_stage_has_ended_since(root: Path) -> None:
    (root / "traceback.txt").write_text("Traceback\n  ...\nValueError: no such thing\n")
    assert "ValueError: no such thing" in status_of(read_run(root)).said
    shutil.copy(root / "facts" / "train.json", root / "facts" / "merge.json")
    write_facts(root, "merge")
    assert status_of(read_run(root)).word == "trained"


def test_what_failed_validation_is_not_called_good(root: Path) -> None:
    path = root / "facts" / "validate.json"
    values = json.loads(path.read_text())
    values["passed"] = values["levels"][0]["passed"] = False
    path.write_text(json.dumps(values))
    assert status_of(read_run(root)).mood == "bad"
    assert page_of(read_run(root)).count("FAILED") == 2


@pytest.mark.parametrize("where", ["text", "name", "layer", "key", "fault", "error"])
def test_no_text_of_a_file_breaks_out_of_the_page(where: str, root: Path) -> None:
    run = read_run(root)
    if where == "text":
        write_lines(root / SAMPLES_FILE, [{"step": 1, "prompt": HOSTILE, "text": HOSTILE, "seconds": 1}])
    elif where == "name":
        root = root.rename(root.with_name("<script>window.hacked=1<" + "img>"))
        run = read_run(root, {"recipe": HOSTILE})
    elif where == "layer":
        layer = {"name": HOSTILE, "num_outputs": 1, "num_inputs": 1, "scheme": HOSTILE, "reason": HOSTILE}
        write_facts(root, "plan", layers=[layer])
    elif where == "key":
        write_lines(root / METRICS_FILE, [{"step": 1, HOSTILE: 1.0}, {"step": 2, HOSTILE: 2.0}])
    elif where == "fault":
        (root / "facts" / "train.json").write_text(json.dumps({"stage": HOSTILE}))
    else:
        (root / "traceback.txt").write_text(HOSTILE)
    run = run if where == "name" else read_run(root, {"recipe": "r"})
    page = page_of(run)
    assert "hacked" in page
    assert "<script>window" not in page
    assert "<img" not in page


def damaged(text: str) -> Iterator[str]:
    """Yield what may be left of a facts file: cut, of another kind, each field in turn of another type."""
    yield from (text[:at] for at in (0, 1, len(text) // 3, len(text) // 2, len(text) - 2))
    yield from ("[]", "null", '"x"', "\x00\x01", "{}", '{"stage": "other"}', "[" * 100_000)
    values = json.loads(text)
    for at, name in enumerate(values):
        yield json.dumps(values | {name: WRONG[at % len(WRONG)]})
        yield json.dumps({key: value for key, value in values.items() if key != name})


@pytest.mark.parametrize("stage", ["budget", "evaluate", "export", "plan", "train", "validate"])
def test_a_damaged_facts_file_is_told_and_ends_nothing(stage: str, root: Path) -> None:
    for name in (METRICS_FILE, SAMPLES_FILE, LAYERS_FILE):
        (root / name).unlink()
    path = root / "facts" / f"{stage}.json"
    whole, told = path.read_text(), 0
    for text in damaged(whole):
        path.write_text(text)
        run = read_run(root)
        render_html(run_document(run))
        told += any(f"facts/{stage}.json is not shown" in fault for fault in run.faults)
    assert told > 12
    path.write_bytes(b"\xff\xfe\x00")
    assert len(read_run(root).faults) == 1
    assert page_of(read_run(root)).count("is not shown") == 1


def test_a_line_that_is_being_written_is_left_out_and_a_damaged_one_is_told(root: Path) -> None:
    path = root / METRICS_FILE
    whole = len(read_run(root).metrics)
    path.write_text(path.read_text() + '{"step": 61, "lo')
    assert (len(read_run(root).metrics), read_run(root).faults) == (whole, ())
    path.write_text('nonsense\n{"step": "1", "loss": []}\n' + path.read_text())
    run = read_run(root)
    assert len(run.faults) == 1
    assert "metrics.jsonl: 1 line is left out, the first: line 1" in run.faults[0]
    page_of(run)


@pytest.mark.parametrize("name", [METRICS_FILE, SAMPLES_FILE, LAYERS_FILE])
def test_lines_of_other_types_end_nothing(name: str, root: Path) -> None:
    rows = [json.loads(line) for line in (root / name).read_text().splitlines()]
    for value in WRONG:
        write_lines(root / name, [*({**rows[0], key: value} for key in rows[0]), {}])
        render_html(run_document(read_run(root)))


def test_two_runs_are_compared_figure_by_figure_and_curve_by_curve(tmp_path: Path) -> None:
    roots = [write_run(tmp_path / "one"), write_run(tmp_path / "two", steps=30, factor=0.5, text="other")]
    runs = [read_run(roots[0], {"a": {"lr": 1, "b": 2}}), read_run(roots[1], {"a": {"lr": 3, "b": 2}})]
    page = render_html(compare_document(runs))
    assert "One key differs" in page
    assert re.search(r"a\.lr</th><td[^>]*>1</td><td[^>]*>3</td>", page)
    assert re.search(r"steps</th><td>60</td><td>30</td>", page)
    drawn = plots(page)["Held-out perplexity"]
    assert [line["name"] for line in drawn["lines"]] == ["one", "two"]
    for line, row in zip(drawn["lines"], (metrics(60), metrics(30, 0.5)), strict=True):
        expected = [each["val_perplexity"] for each in row if "val_perplexity" in each]
        assert [value for value in line["values"] if value is not None] == pytest.approx(expected, rel=1e-6)
    assert "other" in page


def test_runs_are_called_by_what_tells_them_apart(tmp_path: Path) -> None:
    runs = [RunFiles(tmp_path / name) for name in ("a/x", "b/x", "c/y")]
    assert names_of(runs) == ["a/x", "b/x", "c/y"]
    assert names_of(runs[1:]) == ["x", "y"]


def test_layers_are_shown_by_block_and_family(root: Path) -> None:
    page = page_of(read_run(root))
    heat = page[page.index("Codes flipped since the start") :]
    assert re.search(r"<th scope=\"col\">q</th><th scope=\"col\">down</th>", heat)
    assert f"{len(LAYERS)} layers" in page
    assert "Zeros" not in page, "binary weights have none"
