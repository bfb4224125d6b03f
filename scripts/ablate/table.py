"""Tables of what `ablate/run.py` measured: means over seeds with their spread, and differences seed by seed.

    ratio        perplexity of the trained student / full precision, held-out text; mean +- deviation over seeds
    difference   perplexity of a trial / that of the trial it is compared with, - 1, for each seed that both have; mean
                 +- standard deviation. Equal seeds see equal rows in equal order, so this is the sharper figure. None
                 between trials whose held-out texts differ, as that of text the model wrote itself does.
    verdict      helps or hurts where the difference is larger than twice its standard error, with two seeds or more

Trials that failed, and levers that hurt, keep their rows.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
TITLES = ("", "ppl ratio", "difference", "verdict", "other text", "KL", "top-1", "time", "CPU", "memory", "seeds")
HEADER = ["| " + " | ".join(TITLES) + " |", "|" + "---|" * len(TITLES)]


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a result file; none where it was not measured yet."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []


def grid_table(path: Path, kinds: Iterable[str], command: str) -> list[str]:
    """Return the lines of the table of the trials of these kinds, or how to measure them."""
    rows = read_rows(path)
    wanted = [name for kind in kinds for name in _names(rows, kind)]
    if not wanted:
        return [f"Not measured yet: `{command}`."]
    lines = [_line(name, rows) for name in wanted]
    return [*HEADER, *lines, "", _note([row for row in rows if row["trial"] in wanted])]


def rate_table(path: Path, command: str) -> list[str]:
    """Return the lines of the table of learning rates tried: a row a trial, the lowest ratio of each recipe in bold."""
    rows = [row for row in read_rows(path) if "error" not in row]
    if not rows:
        return [f"Not measured yet: `{command}`."]
    lines = ["| recipe | setting | ppl ratio | time |", "|---|---|---|---|"]
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        own = [row for row in rows if row["recipe"] == recipe]
        best = min(row["in_domain"]["ratio"] for row in own)
        for row in own:
            ratio = f"{row['in_domain']['ratio']:.3f}"
            shown = f"**{ratio}**" if row["in_domain"]["ratio"] == best else ratio
            lines.append(f"| `{recipe}` | {row['what']} | {shown} | {row['seconds']:.0f} s |")
    return [*lines, "", _note(rows)]


def task_table(path: Path, command: str) -> list[str]:
    """Return the lines of the table of a task on a trained model: nats gained, and the share of the best full one."""
    rows = [row for row in read_rows(path) if "error" not in row]
    if not rows:
        return [f"Not measured yet: `{command}`."]
    gains = {name: [_gain(row) for row in rows if row["trial"] == name] for name in _all_names(rows)}
    full = max(statistics.fmean(gains[row["trial"]]) for row in rows if _adapter(row) == "none")
    titles = ("what trains", "ppl before", "ppl after", "nats gained", "of the best full training", "time")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for name, own_gains in gains.items():
        own = [row for row in rows if row["trial"] == name]
        cells = [
            own[0]["what"],
            _mean(own, lambda row: row["in_domain"]["full_precision"], "{:.2f}"),
            _mean(own, lambda row: row["in_domain"]["perplexity"], "{:.2f}"),
            _spread(own_gains, "{:.3f}"),
            _spread([100 * gain / full for gain in own_gains], "{:.1f}", " %"),
            f"{statistics.fmean(row['seconds'] for row in own):.0f} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", _note(rows)]


def _gain(row: Row) -> float:
    """Nats a token that training took off the cross-entropy of the model it began with."""
    return math.log(row["in_domain"]["full_precision"] / row["in_domain"]["perplexity"])


def _adapter(row: Row) -> str:
    return [word for word in row["overrides"] if word.startswith("adapter=")][-1].partition("=")[2]


def _all_names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["trial"] for row in rows))


def _names(rows: list[Row], kind: str) -> list[str]:
    return list(dict.fromkeys(row["trial"] for row in rows if row["kind"] == kind))


def _line(name: str, rows: list[Row]) -> str:
    own = [row for row in rows if row["trial"] == name]
    good = [row for row in own if "error" not in row]
    title = f"**{name}**: {own[0]['what']}".replace("|", "\\|")
    if not good:
        return f"| {title} | failed: {own[0]['error'].replace('|', '/')} |" + " |" * (len(TITLES) - 2)
    differences = _differences(good, rows)
    failed = f" ({len(own) - len(good)} failed)" if len(own) > len(good) else ""
    cells = [
        title,
        _mean(good, lambda row: row["in_domain"]["ratio"], "{:.3f}"),
        _spread([100 * value for value in differences], "{:+.1f}", " %"),
        _verdict(differences),
        _mean([row for row in good if row["out_of_domain"]], lambda row: row["out_of_domain"]["ratio"], "{:.2f}"),
        _mean(good, lambda row: row["in_domain"]["kl"], "{:.3f}"),
        _mean(good, lambda row: 100 * row["in_domain"]["top1_agreement"], "{:.1f}", " %"),
        f"{statistics.fmean(row['seconds'] for row in good):.0f} s",
        f"{statistics.fmean(row['cpu_seconds'] for row in good):.0f} s",
        f"{statistics.fmean(row['peak_mb'] for row in good):.0f} MB",
        f"{len(good)}{failed}",
    ]
    return "| " + " | ".join(cells) + " |"


def _differences(own: list[Row], rows: list[Row]) -> list[float]:
    """Relative differences of perplexity from what the trial is compared with; from the best where that has no rows."""
    for name in (own[0]["against"], "best" if own[0]["kind"] == "added" else "base"):
        base = {row["seed"]: row for row in rows if row["trial"] == name and "error" not in row}
        shared = [row for row in own if row["seed"] in base and row["trial"] != name]
        if shared:
            pairs = [(row, base[row["seed"]]) for row in shared if _same_text(row, base[row["seed"]])]
            return [row["in_domain"]["perplexity"] / other["in_domain"]["perplexity"] - 1 for row, other in pairs]
    return []


def _same_text(row: Row, other: Row) -> bool:
    """Whether both were measured on the same held-out text: the original's perplexity is, but for rounding."""
    return math.isclose(*(each["in_domain"]["full_precision"] for each in (row, other)), rel_tol=1e-4)


def _verdict(differences: list[float]) -> str:
    if len(differences) < 2:
        return ""
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
    if abs(mean) <= 2 * error:
        return "no difference"
    return "helps" if mean < 0 else "hurts"


def _mean(rows: list[Row], figure: Callable[[Row], float], form: str, unit: str = "") -> str:
    return _spread([figure(row) for row in rows], form, unit)


def _spread(values: list[float], form: str, unit: str = "") -> str:
    if not values:
        return ""
    mean = form.format(statistics.fmean(values))
    deviation = f" ± {form.replace('+', '').format(statistics.stdev(values))}" if len(values) > 1 else ""
    return f"{mean}{deviation}{unit}"


def _note(rows: list[Row]) -> str:
    good = [row for row in rows if "error" not in row]
    if not good:
        return ""
    tokens = sorted({f"{row['tokens']:,}" for row in good}, key=lambda text: int(text.replace(",", "")))
    machines = sorted({f"{row['made_by']['cpu']}, {row['made_by']['threads']} threads" for row in good})
    texts = sorted({row["out_of_domain"]["text"] for row in good if row["out_of_domain"]})
    other = f" Other text: {', '.join(texts)}, windows side by side." if texts else ""
    return f"Tokens trained on: {' to '.join(dict.fromkeys([tokens[0], tokens[-1]]))}. {'; '.join(machines)}.{other}"
