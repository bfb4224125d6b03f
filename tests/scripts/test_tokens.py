"""What more tokens buy: a curve from what a run wrote down, and the line through its last points."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from scripts.tables.tokens import curve_of, document, per_doubling


def write_run(folder: Path, points: int = 5, val_tokens: float = 64.0) -> Path:
    """Write a run whose ratio to an original of 10 falls by a tenth of a nat with each doubling of tokens."""
    (folder / "facts").mkdir()
    facts = {
        "recipe": "mine",
        "perplexity": {"full_precision": 10.0, "tokens": 64},
        "train": {"before": {"tokens": 7}},
        "size": {"folder_bytes": 46_000_000},
    }
    (folder / "facts" / "run.json").write_text(json.dumps(facts))
    rows = []
    for at in range(points):
        rows.append({"step": at, "tokens": 1000.0 * 2**at, "loss": 1.0})
        rows.append(
            {"step": at, "val_perplexity": 10 * math.exp(2 - 0.1 * at), "val_tokens": val_tokens, "val_kl": 1.0}
        )
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def test_a_curve_has_a_point_for_every_validation(tmp_path: Path) -> None:
    curve = curve_of(write_run(tmp_path))
    assert [point["tokens"] for point in curve["points"]] == [1000, 2000, 4000, 8000, 16000]
    assert curve["points"][0]["ratio"] == pytest.approx(math.exp(2))
    assert per_doubling(curve["points"]) == pytest.approx(0.1)
    beyond = math.exp(1.6 - 0.1 * math.log2(10))
    assert f"Ten times the tokens, 160,000, would be at {beyond:.2f}" in document({"mine": curve})


def test_too_few_points_and_other_rows_are_refused(tmp_path: Path) -> None:
    for name, words, said in (("few", {"points": 3}, "3 validations"), ("other", {"val_tokens": 65.0}, "same rows")):
        (tmp_path / name).mkdir()
        run = write_run(tmp_path / name, **words)  # type: ignore[arg-type]
        with pytest.raises(SystemExit, match=said):
            curve_of(run)
