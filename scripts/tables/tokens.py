"""What more tokens buy: the held-out figures that a run wrote down as it trained, against the tokens it had read.

    python -m scripts.tables.tokens --keep 'NAME=RUN'   # keep the curve of a finished run, and write the page
    python -m scripts.tables.tokens                     # tokens.md and tokens.svg in `docs`, from the result file
    python -m scripts.tables.tokens --check             # exit 1 where the page is not what the result file says

A point in the middle of a run is of weights whose learning rate has not fallen yet, so it stands above what a run of
just so many tokens would reach. What a doubling of tokens buys is read from the last points by a straight line through
nats against the logarithm of tokens, and said as what it is: a line beyond what was measured.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts import RESULTS, ROOT

RESULT = RESULTS / "tokens_smollm2.json"
DOCS = ROOT / "docs"
FEWEST_POINTS = 4
FITTED = 4  # last points that the line goes through
Curve = dict[str, Any]


def curve_of(run: Path) -> Curve:
    """Return tokens, perplexity ratio and KL at every validation of a finished run. Refuses one with too few."""
    facts = json.loads((run / "facts" / "run.json").read_text(encoding="utf-8"))
    original, tokens = facts["perplexity"]["full_precision"], facts["perplexity"]["tokens"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    by_step = {row["step"]: row for row in rows if "tokens" in row}
    points = []
    for row in (row for row in rows if "val_perplexity" in row):
        if row["val_tokens"] != tokens:
            raise SystemExit(
                f"{run}: training validated on {row['val_tokens']:g} tokens, the original was measured on {tokens}: "
                "`data.max_validation_rows` and `evaluate.max_tokens` must be of the same rows."
            )
        read = by_step[row["step"]]["tokens"]
        points.append({"tokens": int(read), "ratio": row["val_perplexity"] / original, "kl": row["val_kl"]})
    if len(points) < FEWEST_POINTS:
        raise SystemExit(f"{run} has {len(points)} validations; a curve takes {FEWEST_POINTS}.")
    before = facts["train"]["before"]["tokens"]
    size = facts["size"]["folder_bytes"]
    return {"recipe": facts["recipe"], "folder_bytes": size, "before": before, "points": points}


def per_doubling(points: Sequence[Curve]) -> float:
    """Return what a doubling of tokens takes from log(ratio), nats: a least-squares line through the last points."""
    last = points[-FITTED:]
    xs, ys = [math.log2(point["tokens"]) for point in last], [math.log(point["ratio"]) for point in last]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return -sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread


def document(result: dict[str, Curve]) -> str:
    """Return the whole page."""
    parts = [
        "# What more tokens buy",
        "",
        "Written by `python -m scripts.tables.tokens` from what runs wrote down as they trained; no figure is typed.",
        "Ratio and KL are of the run's held-out rows. A point inside a run is of weights whose rate is still high.",
        "",
        "![Perplexity ratio against tokens](tokens.svg)",
        "",
    ]
    for name, curve in result.items():
        parts += [*_section(name, curve), ""]
    return "\n".join(parts[:-1]) + "\n"


def _section(name: str, curve: Curve) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    yield (
        f"Recipe `{curve['recipe']}`, a folder of {curve['folder_bytes'] / 1e6:.1f} MB; {curve['before']:,} tokens "
        "went to the start and its blocks before those below."
    )
    yield ""
    yield "| tokens | ratio | KL, nats |"
    yield "|---|---|---|"
    yield from (f"| {point['tokens']:,} | {point['ratio']:.2f} | {point['kl']:.3f} |" for point in curve["points"])
    yield ""
    gain, last = per_doubling(curve["points"]), curve["points"][-1]
    beyond = last["ratio"] * math.exp(-gain * math.log2(10))
    yield (
        f"The last {FITTED} points fall by {gain:.3f} nats a doubling. Ten times the tokens, {10 * last['tokens']:,}, "
        f"would be at {max(beyond, 1.0):.2f} by that line, which nobody has measured."
    )


def draw(result: dict[str, Curve], path: Path) -> None:
    """Write ratio against tokens as SVG; the same result gives the same bytes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "tokens", "font.size": 8}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, curve in result.items():
        xs, ys = zip(*((point["tokens"], point["ratio"]) for point in curve["points"]), strict=True)
        axes.plot(xs, ys, marker="o", markersize=3, linewidth=1, label=name)
    axes.set(xscale="log", yscale="log", xlabel="tokens read end to end", ylabel="perplexity / the original's")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main(words: list[str] | None = None) -> int:
    """Keep, write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", metavar="NAME=RUN", help="keep the curve of this run under this name")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(words)
    result = json.loads(options.result.read_text(encoding="utf-8")) if options.result.is_file() else {}
    if options.keep:
        name, _, run = options.keep.partition("=")
        result[name] = curve_of(Path(run))
        options.result.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    page = options.docs / "tokens.md"
    if options.check:
        fresh = page.is_file() and page.read_text(encoding="utf-8") == document(result)
        if not (fresh and (options.docs / "tokens.svg").is_file()):
            print(f"{page.name} is stale: run `python -m scripts.tables.tokens`", file=sys.stderr)
            return 1
        return 0
    page.write_text(document(result), encoding="utf-8")
    draw(result, options.docs / "tokens.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
