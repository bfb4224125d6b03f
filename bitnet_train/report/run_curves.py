"""What a run logged as pictures: every term of the loss, held-out figures, the schedules, gradients, speed, flips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bitnet_train.report.curve import Points, most_of, points_of
from bitnet_train.report.document import Curves, Line
from bitnet_train.report.kept import KeptLayerFigures
from bitnet_train.report.run_files import RunFiles

MOST_POINTS = 1000  # of a line
NATS = "nats a token"


@dataclass(frozen=True)
class Panel:
    """One picture: keys of `metrics.jsonl` in training and on held-out text ("" = none)."""

    title: str
    unit: str
    trained: str = ""
    held_out: str = ""


PANELS = (
    Panel("Held-out perplexity", "", held_out="val_perplexity"),
    Panel("Loss", "weighted sum of its terms", "loss"),
    Panel("Cross-entropy", NATS, "ce", "val_ce"),
    Panel("KL to the original", NATS, "kl", "val_kl"),
    Panel("KL from the original", NATS, "reverse_kl"),
    Panel("Distance of hidden states", "", "hidden"),
    Panel("Distance of attention relations", "", "attention"),
    Panel("Signs flipped since the start", "share of codes", held_out="flips"),
    Panel("Learning rate", "", "lr"),
    Panel("Hardness of the quantiser", "", "hardness"),
    Panel("Gradient norm", "before clipping", "grad_norm"),
    Panel("Speed of training", "tokens a second", "tokens_per_s"),
)
TRAINING, HELD_OUT = "training", "held out"
_TRAINING_COLOUR, _HELD_OUT_COLOUR = 2, 1
_TERMS = ("ce", "kl", "reverse_kl", "hidden", "attention")
_NO_CURVES = {"step", "epoch", "tokens", "val_tokens"}  # they only count


def curves_of(run: RunFiles) -> tuple[Curves, ...]:
    """Return a picture for everything that was logged at least once; a term that is the whole loss has one picture."""
    found = [_of_panel(panel, run) for panel in panels_of([run])]
    return tuple(curves for curves in [*found, *telemetry_curves(run.layers)] if curves is not None)


def panels_of(runs: Sequence[RunFiles]) -> Iterator[Panel]:
    """Yield the panels, those of figures that are not known here last; none for a loss that has one term."""
    known = {key for panel in PANELS for key in (panel.trained, panel.held_out)} | _NO_CURVES
    others = sorted({key for run in runs for row in run.metrics for key in row} - known)
    yield from (panel for panel in PANELS if not (panel.trained == "loss" and all(map(_has_one_term, runs))))
    yield from (Panel(key.replace("_", " "), "", key) for key in others)


def compared_curves(runs: Sequence[RunFiles], names: Sequence[str]) -> Iterator[Curves]:
    """Yield a picture for each figure, with a line a run; what is measured on held-out text where there is some."""
    for panel in panels_of(runs):
        key = panel.held_out or panel.trained
        if panel.held_out and not any(points_of(run.metrics, panel.held_out) for run in runs):
            key = panel.trained
        drawn = [(at, points_of(run.metrics, key, MOST_POINTS)) for at, run in enumerate(runs)]
        lines = tuple(Line(names[at], tuple(points), 1 + at, key == panel.held_out) for at, points in drawn if points)
        if lines:
            where = HELD_OUT if key == panel.held_out and panel.trained else ""
            unit = ", ".join(part for part in (panel.unit, where) if part)
            yield Curves(panel.title, unit, lines, _top([points for _, points in drawn if points]))


def telemetry_curves(layers: Iterable[KeptLayerFigures]) -> Iterator[Curves]:
    """Yield what telemetry saw of codes over the steps, each layer counted alike."""
    by_step: dict[int, list[KeptLayerFigures]] = defaultdict(list)
    for row in layers:
        by_step[row.step].append(row)
    if not by_step:
        return
    steps = sorted(by_step)

    def mean(name: str) -> tuple[tuple[float, float], ...]:
        return tuple(
            (float(step), sum(getattr(row, name) for row in by_step[step]) / len(by_step[step])) for step in steps
        )

    yield Curves(
        "Codes flipped",
        "share, mean of the layers",
        (Line("since the start", mean("flips_init"), 1, True), Line("since the last look", mean("flips"), 2, True)),
    )
    lines = [Line("near the threshold, |z| < 0.05", mean("near_zero"), 1, True)]
    if any(row.zeros for row in by_step[steps[-1]]):
        lines.append(Line("zero", mean("zeros"), 2, True))
    yield Curves("Sparsity", "share, mean of the layers", tuple(lines))


def _of_panel(panel: Panel, run: RunFiles) -> Curves | None:
    trained = points_of(run.metrics, panel.trained, MOST_POINTS)
    held_out = points_of(run.metrics, panel.held_out, MOST_POINTS) if panel.held_out else []
    lines = [Line(TRAINING, tuple(trained), _TRAINING_COLOUR)] if trained else []
    if held_out:
        lines.append(
            Line(
                HELD_OUT if panel.held_out != "flips" else "sample of all layers",
                tuple(held_out),
                _HELD_OUT_COLOUR,
                True,
            )
        )
    unit = f"{panel.unit}; it is the whole loss" if trained and _is_the_loss(panel.trained, run) else panel.unit
    return Curves(panel.title, unit, tuple(lines), _top([trained], held_out)) if lines else None


def _top(trained: Sequence[Points], held_out: Sequence[tuple[float, float]] = ()) -> float | None:
    """Return the highest value to show at first: that of nearly all points; None where that is nearly the most."""
    most = max([*(most_of(points) for points in trained), *(value for _, value in held_out)], default=0.0)
    highest = max((value for points in trained for _, value in points), default=0.0)
    return most if 0 < most < highest / 1.5 else None


def _has_one_term(run: RunFiles) -> bool:
    return any(_is_the_loss(term, run) for term in _TERMS)


def _is_the_loss(key: str, run: RunFiles) -> bool:
    if key not in _TERMS:
        return False
    rows = [row for row in run.metrics if "loss" in row]
    return bool(rows) and all(row.get(key) == row["loss"] for row in rows)
