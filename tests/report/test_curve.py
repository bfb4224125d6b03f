"""The curve of a training as an SVG file."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from bitnet_train.report.curve import render_curve

METRICS = [
    {"step": 1, "ce": 4.0, "kl": 1.0, "lr": 0.1},
    {"step": 2, "ce": 3.0, "kl": 0.5},
    {"step": 2, "val_ce": 3.2, "val_kl": 0.6},
    {"step": 3, "ce": 2.0, "kl": 0.25},
    {"step": 4, "val_ce": 2.5, "val_kl": 0.3},
]


def curve(metrics: list[dict]) -> str:
    drawn = render_curve(metrics)
    assert drawn is not None
    ElementTree.fromstring(drawn)
    return drawn


def test_both_figures_are_drawn_in_training_and_on_held_out_text() -> None:
    drawn = curve(METRICS)
    assert re.findall(r'class="title"[^>]*>([^<]*)<', drawn) == [
        "cross-entropy, nats a token",
        "KL to the original, nats a token",
    ]
    assert (drawn.count('<path class="s0"'), drawn.count('<path class="s1"'), drawn.count("<circle")) == (2, 2, 4)
    assert drawn.count("step 4") == 2


def test_a_figure_that_was_not_logged_has_no_panel_and_without_any_there_is_no_curve() -> None:
    alone = curve([{"step": at, "ce": 3.0 - at} for at in (1, 2)])
    assert "KL" not in alone
    assert render_curve([]) is None
    assert render_curve([{"step": 1, "ce": 2.0}]) is None
    assert render_curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]) is None


def test_what_is_no_number_is_left_out() -> None:
    rows = [{"step": 1, "ce": math.nan}, {"step": 2, "ce": "3"}, {"step": 3, "ce": True}, {"ce": 1.0}]
    assert render_curve(rows) is None
    assert "nan" not in curve([*METRICS, *rows])


def test_of_a_step_that_was_logged_twice_the_later_counts() -> None:
    again = [{**row, "ce": 9.0} for row in METRICS if "ce" in row]
    assert curve([*again, *METRICS]) == curve(METRICS)


def test_a_long_run_is_a_small_file_that_ends_with_its_last_step() -> None:
    drawn = curve([{"step": at, "ce": 3.0 + math.sin(at)} for at in range(1, 100_001)])
    assert len(drawn) < 20_000
    assert "step 100,000" in drawn


def test_a_first_step_far_above_all_others_does_not_flatten_them() -> None:
    rows = [{"step": at, "ce": 1000.0 if at == 1 else 3.0} for at in range(1, 201)]
    top = re.findall(r'text-anchor="end">([\d.,]+)<', curve(rows))
    assert max(float(value.replace(",", "")) for value in top if value != "200") < 4
