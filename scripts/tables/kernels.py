"""Draw the roofline picture and write the table of kernels from a result file of `bench/kernels.py`.

    python -m scripts.tables.kernels             # docs/kernels.svg and docs/kernels.md
    python -m scripts.tables.kernels --check     # exit 1 if docs/kernels.md is not what the result file says

A roofline has operations per byte of weights on one axis and operations per second on the other. A kernel lies under
two kinds of roofs: the slanted ones are the bandwidth of a level of memory, the level ones what its arithmetic can do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts import RESULTS, ROOT

RESULT = RESULTS / "bench_kernels.json"
DOCS = ROOT / "docs"
Row = dict[str, Any]

COLOURS = {"avx512": "#1f6fb4", "avx2": "#2a9d5c", "popcnt": "#8a6fb0", "portable": "#888888", "torch": "#d9822b"}
MARKS = {"int8": "o", "int4": "s", "sign": "^", "float32": "x", "bfloat16": "+"}
COLD_BYTES = 32 << 20  # weights beyond this are read from DRAM on the machines that we know
SHOWN_TOKENS = (1, 512)


def threads_of(rows: list[Row]) -> list[int]:
    """Return the numbers of threads that were timed."""
    return sorted({row["threads"] for row in rows})


def columns(rows: list[Row]) -> list[tuple[int, int, int]]:
    """Return the shapes (T, N, K) of the table: warm weights, then those out of cache."""
    shapes = {(row["tokens"], row["outputs"], row["inputs"]) for row in rows if row["tokens"] in SHOWN_TOKENS}
    return sorted(shapes, key=lambda shape: (shape[1] * shape[2] > 8 * COLD_BYTES, shape[1] * shape[2], shape))


def lines(rows: list[Row]) -> Iterator[tuple[str, dict[tuple[int, int, int], Row]]]:
    """Yield a name and its rows by shape for every line of the table: our kernels first, fastest on top."""
    found: dict[tuple[str, ...], dict[tuple[int, int, int], Row]] = {}
    for row in rows:
        group = "" if row["group"] >= row["inputs"] else f"group {row['group']}"
        key = (row["weights"], row["activation"], group, row["isa"], row["kernel"])
        found.setdefault(key, {})[(row["tokens"], row["outputs"], row["inputs"])] = row

    def order(key: tuple[str, ...]) -> tuple[Any, ...]:
        return (key[3] == "torch", *key[:3], -max(row["gops"] for row in found[key].values()))

    for key in sorted(found, key=order):
        weights, activation, group, isa, kernel = key
        ours = f"{weights}, {activation}{', ' if group else ''}{group} | {isa} | {kernel}"
        yield (ours if isa != "torch" else f" | torch | {kernel.removeprefix('torch ')}"), found[key]


def table(rows: list[Row]) -> str:
    """Return the markdown table of GOP/s for one number of threads."""
    shapes = columns(rows)
    heads = [f"T={t}, {n} x {k}" for t, n, k in shapes]
    text = [f"| weights, activations | isa | kernel | {' | '.join(heads)} |", "|---" * (3 + len(shapes)) + "|"]
    for name, by_shape in lines(rows):
        cells = [f"{by_shape[shape]['gops']:.0f}" if shape in by_shape else "" for shape in shapes]
        if any(cells):
            text.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(text)


def limits_text(limits: dict[str, Any]) -> str:
    """Return the limits in one sentence."""
    reads = ", ".join(f"{level} {speed:.0f}" for level, speed in limits["bandwidth_GBps"].items())
    parts = [f"Read bandwidth in GB/s: {reads}."]
    if limits.get("clock_GHz"):
        parts.append(f"Clock: {limits['clock_GHz']:.2f} GHz.")
    if limits.get("arithmetic_GOPps"):
        reach = ", ".join(f"{method} {speed:.0f}" for method, speed in limits["arithmetic_GOPps"].items())
        parts.append(f"Arithmetic limits in GOP/s: {reach}.")
    return " ".join(parts)


def document(result: dict[str, Any]) -> str:
    """Return docs/kernels.md."""
    facts = result["facts"]
    text = [
        "# Kernels",
        "",
        "Written by `scripts/tables/kernels.py` from a result file of `scripts/bench/kernels.py`; no figure is typed.",
        "GOP/s = 2 x T x N x K / time, medians, quantising and packing of the activations included. T tokens, a weight",
        "of N outputs and K inputs; the largest weight does not fit the caches.",
        "",
        f"Measured {facts['date']} at commit {facts['commit']} on {facts['cpu']}, torch {facts['made_by']['torch']}.",
        "",
        "![Roofline of the kernels on one thread](kernels.svg)",
    ]
    for threads in threads_of(result["rows"]):
        rows = [row for row in result["rows"] if row["threads"] == threads]
        text += ["", f"## {threads} thread{'s' * (threads > 1)}", ""]
        text += [limits_text(result["limits"][str(threads)]), "", table(rows)]
    return "\n".join(text) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the roofline of one thread as SVG; the same result gives the same bytes with the same matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "kernels", "font.size": 8}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6))
    rows = [row for row in result["rows"] if row["threads"] == 1]
    _draw_roofs(axes, result["limits"]["1"], [intensity(row) for row in rows])
    seen: set[str] = set()
    for row in rows:
        name = f"{row['isa']} {row['activation']}" if row["isa"] != "torch" else row["kernel"]
        label = None if name in seen else name
        axes.plot(intensity(row), row["gops"], **_mark(row), linestyle="none", markersize=4, label=label)
        seen.add(name)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte of weights", ylabel="GOP/s")
    axes.set_ylim(bottom=5)
    axes.set_title(f"Kernels on one thread, {result['facts']['cpu'].partition(' (')[0]}; hollow marks are ternary")
    axes.legend(loc="lower right", ncols=2)
    axes.grid(visible=True, which="major", alpha=0.25)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _mark(row: Row) -> dict[str, str]:
    colour = COLOURS.get(row["isa"], "#000000")
    face = "none" if row["weights"] == "ternary" else colour
    return {"marker": MARKS.get(row["activation"], "d"), "color": colour, "markerfacecolor": face}


def intensity(row: Row) -> float:
    """Return the operations for each byte of weights that is read."""
    return 2 * row["tokens"] * row["outputs"] * row["inputs"] / row["bytes"]


def _draw_roofs(axes: Any, limits: dict[str, Any], intensities: list[float]) -> None:
    left, right = min(intensities) / 2, max(intensities) * 2
    roof = 1.1 * max(limits.get("arithmetic_GOPps", {"": 2500.0}).values())
    for level, speed in limits["bandwidth_GBps"].items():
        end = min(right, roof / speed)
        axes.plot([left, end], [left * speed, end * speed], color="#999999", linewidth=0.8)
        axes.annotate(f"{level} {speed:.0f} GB/s", (left, left * speed), color="#666666", rotation=30)
    for method, speed in limits.get("arithmetic_GOPps", {}).items():
        axes.plot([left, right], [speed, speed], color="#bb4444", linewidth=0.8, linestyle=":")
        axes.annotate(f"{method} {speed:.0f}", (right, speed), color="#bb4444", ha="right", va="bottom")


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    result = json.loads(options.result.read_text())
    page, text = options.docs / "kernels.md", document(result)
    if options.check:
        fresh = page.is_file() and page.read_text() == text and (options.docs / "kernels.svg").is_file()
        if not fresh:
            print("docs/kernels.md is stale: run `python -m scripts.tables.kernels`", file=sys.stderr)
        return int(not fresh)
    options.docs.mkdir(exist_ok=True)
    page.write_text(text)
    draw(result, options.docs / "kernels.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
