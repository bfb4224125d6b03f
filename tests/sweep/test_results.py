"""What trials came to: the best first, with a page that shows all."""

from __future__ import annotations

from pathlib import Path

from bitnet_train.report.html import render_html
from bitnet_train.sweep.ranges import read_range
from bitnet_train.sweep.results import Row, best_of, document, render_rows, rows_of
from bitnet_train.sweep.settings import SweepConfig
from bitnet_train.sweep.study import SharedStudy


def test_the_best_comes_first_then_what_was_pruned_failed_or_goes_on(tmp_path: Path) -> None:
    study = SharedStudy(tmp_path, [read_range("optimizer.lr", "Any", "1e-4..1e-2")], SweepConfig(trials=5))
    for figure, ended in ((3.0, {}), (2.0, {}), (4.0, {"is_pruned": True}), (None, {"error": "no <memory>"})):
        taken = study.take()
        assert taken is not None
        if figure is not None:
            taken.report(figure + 1, 1)
            taken.report(figure, 2)
        study.tell(taken, None if ended else figure, **ended)
    assert study.take() is not None
    rows = rows_of(study.trials())
    assert [row.state for row in rows] == ["trained", "trained", "pruned", "failed", "running"]
    assert [row.number for row in rows] == [1, 0, 2, 3, 4]
    best = best_of(rows)
    assert best is not None
    assert (best.name, best.nats, best.steps) == ("trial-0001", 2.0, 2)
    assert render_rows(rows, ["optimizer.lr"]).row_count == 5
    page = render_html(document(rows, ["optimizer.lr"], "quickstart", tmp_path, 5))
    assert page.count("<svg") >= 1
    assert "no &lt;memory&gt;" in page
    assert all(f"{row.name}: {row.values['optimizer.lr']:.4g}, " in page for row in rows[:2])
    assert "2 trained, 1 pruned, 1 failed, 1 running; 5 in all." in page


def test_values_that_are_no_numbers_or_all_alike_have_no_picture() -> None:
    rows = [Row(at, "trained", {"a": f"choice{at}", "b": 3, "c": str(at)}, 2.0 + at, (), 1.0, "") for at in range(2)]
    sections = document(rows, ["a", "b", "c"], "quickstart", Path("sweep"), 2).sections
    (pictures,) = (section.blocks for section in sections if section.title == "Values")
    assert [picture.title for picture in pictures] == ["c, held-out text"]


def test_a_sweep_of_which_nothing_is_known_yet_has_a_page(tmp_path: Path) -> None:
    assert best_of([]) is None
    assert "no trial yet" in render_html(document([], ["optimizer.lr"], "quickstart", tmp_path, 5))
