"""Write the page of the frontier and its picture from the result file of `python -m scripts.frontier`.

    python -m scripts.tables.frontier             # frontier.md and frontier.svg in `docs`
    python -m scripts.tables.frontier --check     # exit 1 where the page is not what the result file says

Every sentence about who is better is made of the figures: `frontier/curve.py` says what beats what.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts import RESULTS, ROOT
from scripts.frontier.curve import Place, beats, frontier
from scripts.frontier.result import LLAMA_CPP, ORIGINAL, OURS

RESULT = RESULTS / "frontier_smollm2.json"
DOCS = ROOT / "docs"
COLOURS = {LLAMA_CPP: "#d9822b", OURS: "#1f6fb4"}
SHOWN_SHARES = 3  # of the types inside a file
COMMAND = "python -m scripts.frontier"
Facts = dict[str, Any]


def places(result: Facts, text: str) -> list[Place]:
    """Return all that was measured on a text, the original too."""
    original = Place(ORIGINAL, LLAMA_CPP, result["original"]["file_bytes"], 1.0)
    points = (
        Place(label, point["side"], point["file_bytes"], point["quality"][text]["ratio"])
        for label, point in result["points"].items()
        if text in point["quality"]
    )
    return [original, *points]


def document(result: Facts) -> str:
    """Return the whole page."""
    lines = [
        f"# What {result['original']['name'].partition('.')[0]} costs, and keeps",
        "",
        f"Written by `python -m scripts.tables.frontier` from what `{COMMAND}` measured; no figure here is typed.",
        "",
        *_about(result),
        "",
        "![Perplexity ratio against megabytes](frontier.svg)",
        "",
        *table(result),
        "",
        *_notes(result),
        "",
        "## Which is better",
        "",
        *(f"- {sentence}" for text in result["texts"] for sentence in verdicts(result, text)),
        "",
        "## Conditions",
        "",
        *_conditions(result),
    ]
    return "\n".join(lines) + "\n"


def _about(result: Facts) -> Iterator[str]:
    for name, text in result["texts"].items():
        known = result["original"].get("perplexity", {})
        sides = [side for side in (LLAMA_CPP, OURS) if name in known.get(side, {})]
        own = ", ".join(f"{known[side][name]:.2f} {_engine(side)}" for side in sides)
        windows = f"{text['windows']} windows of {text['window_tokens']:,}"
        yield f"- {name}: {text['tokens']:,} tokens in {windows}; perplexity of the original {own}."


def _engine(side: str) -> str:
    return "in llama.cpp" if side == LLAMA_CPP else "as floats in transformers"


def table(result: Facts) -> list[str]:
    """Return the table: the original, then from large to small."""
    texts = list(result["texts"])
    heads = [f"{figure}, {text}" for text in texts for figure in ("ratio", "KL", "top-1")]
    rows = sorted(result["points"].items(), key=lambda item: (-item[1]["file_bytes"], item[0]))
    return [
        f"| model | by | MB | bits/weight | {' | '.join(heads)} | decode tok/s | weights stored as, % of their bytes |",
        "|---" * (6 + len(heads)) + "|",
        _row(ORIGINAL, LLAMA_CPP, result["original"], ["1.00", "0", "100 %"] * len(texts)),
        *(_row(label, point["side"], point, _quality(point, texts)) for label, point in rows),
    ]


def _quality(point: Facts, texts: Sequence[str]) -> list[str]:
    return [cell for text in texts for cell in _cells(point["quality"].get(text))]


def _cells(quality: Facts | None) -> Sequence[str]:
    if quality is None:
        return ("", "", "")
    return (f"{quality['ratio']:.2f}", f"{quality['kl_nats']:.3f}", f"{100 * quality['top1_agreement']:.1f} %")


def _row(label: str, side: str, facts: Facts, quality: Sequence[str]) -> str:
    decode = f"{facts['decode']['tokens_per_s']:.0f}" if "decode" in facts else ""
    size = (f"{facts['file_bytes'] / 1e6:.1f}", f"{facts['bits_per_weight']:.2f}")
    name = f"**{label}**" if side == OURS else label
    return "| " + " | ".join((name, side, *size, *quality, decode, _shares(facts["stored_as"]))) + " |"


def _shares(stored: dict[str, int]) -> str:
    total = sum(stored.values())
    largest = sorted(stored.items(), key=lambda item: -item[1])[:SHOWN_SHARES]
    return ", ".join(f"{name} {100 * count / total:.0f}" for name, count in largest)


def _notes(result: Facts) -> Iterator[str]:
    yield (
        "- MB: the whole file, or all files of the folder, tokenizer and settings too. Bits a weight: bytes of the "
        f"weights over the {result['original']['parameters'] / 1e6:.1f} M parameters of the original."
    )
    yield "- Ratio, KL (nats) and top-1 agreement are each against the same engine's own logits of the original."
    yield (
        "- llama.cpp names a file after the type that it would like. A row whose length is no multiple of that type's "
        "block (256 for most narrow ones) gets a wider one, and some layers do by its own rules: the last column says "
        "what is inside. The original is quantised too, so wider types keep no more than it has."
    )
    for label, reason in result["refused"].items():
        yield f"- Not there: {label}. {reason}"


def verdicts(result: Facts, text: str) -> Iterator[str]:
    """Yield sentences on who is better on a text."""
    known = places(result, text)
    best = frontier(known)
    yield f"**{text}**. Beaten by none in size and ratio together: {_listed(best)}."
    ours = [place for place in known if place.side == OURS]
    if not ours:
        yield f"{text}: no packed folder of ours is measured yet; every point is llama.cpp's."
    for place in ours:
        yield f"{text}: {_against(place, [other for other in known if other.side == LLAMA_CPP])}"


def _against(place: Place, theirs: Sequence[Place]) -> str:
    """Say where one of ours stands among llama.cpp's."""
    beating = [other for other in theirs if beats(other, place)]
    beaten = [other for other in theirs if beats(place, other)]
    keeps_more = [other for other in theirs if other.ratio < place.ratio]
    said = f"{_named(place)}"
    if beating:
        return f"{said} loses to llama.cpp: {_listed(beating)} {_are(beating)} no larger and no worse."
    if beaten:
        said += f" beats {_listed(beaten)} of llama.cpp in size and ratio together."
    elif all(place.num_bytes < other.num_bytes for other in theirs):
        said += " is smaller than every file of llama.cpp."
    else:
        said += " is beaten by none of llama.cpp's, and beats none."
    if not keeps_more:
        return said + " None of llama.cpp's keeps more of the original."
    smallest = min(keeps_more, key=lambda other: other.num_bytes)
    times = smallest.num_bytes / place.num_bytes
    return (
        said + f" llama.cpp wins in ratio with {len(keeps_more)} of its {len(theirs)} files; the smallest of them, "
        f"{_named(smallest)}, has {times:.2f} times the bytes."
    )


def _named(place: Place) -> str:
    return f"{place.label} ({place.num_bytes / 1e6:.1f} MB, {place.ratio:.2f})"


def _listed(several: Sequence[Place]) -> str:
    return ", ".join(_named(place) for place in sorted(several, key=lambda place: place.num_bytes))


def _are(several: Sequence[Place]) -> str:
    return "is" if len(several) == 1 else "are"


def _conditions(result: Facts) -> Iterator[str]:
    """Yield a line for every run that something on the page is of."""
    measured = [result["original"], *result["points"].values()]
    quality = {point["run"] for point in result["points"].values()}
    decode = {point["decode"]["run"] for point in measured if "decode" in point}
    for number in sorted(quality | decode):
        run = result["runs"][number]
        what = " and ".join(word for word, numbers in (("quality", quality), ("decoding", decode)) if number in numbers)
        yield f"- {what}, {run['date']}, commit {run['commit']}, {run['cpu'].split(' (')[0]}.{_library(run)}"
    yield from _speeds([point["decode"] for point in measured if "decode" in point])


def _library(run: Facts) -> str:
    if run["llama_cpp"] is None:
        return ""
    importance = run["importance"]
    return (
        f" llama.cpp {run['llama_cpp']['version']} ({run['llama_cpp']['build']}); importance matrix of "
        f"{importance['tokens']:,} tokens of {importance['text']}."
    )


def _speeds(timed: Sequence[Facts]) -> Iterator[str]:
    if not timed:
        return
    threads = sorted({each["threads"] for each in timed})
    least, most = (pick(each["others_cores"] for each in timed) for pick in (min, max))
    yield (
        f"- Decoding is greedy, from a prompt of one token, on {' and '.join(map(str, threads))} threads, every model "
        "in a process of its own and in turn; medians. Ours run in the native runtime, llama.cpp has its own defaults. "
        f"Other programs kept {least:.2f} to {most:.2f} cores busy meanwhile."
    )


def draw(result: Facts, path: Path) -> None:
    """Write ratio against megabytes as SVG, a panel a text; the same result gives the same bytes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "frontier", "font.size": 8}
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(result["texts"]), figsize=(11, 5), squeeze=False, sharey=True)
    for axes, text in zip(panels[0], result["texts"], strict=True):
        known = places(result, text)
        for side, colour in COLOURS.items():
            _draw_side(axes, [place for place in known if place.side == side], side, colour)
        axes.set(yscale="log", xlabel="megabytes", title=text)
        axes.set_xlim(left=0)
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend(loc="upper right")
    panels[0][0].set_ylabel("perplexity / the original's")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw_side(axes: Any, known: Sequence[Place], side: str, colour: str) -> None:
    """Draw the points of a side, their labels, and the line through those that none of the same side beats."""
    if not known:
        return
    best = frontier(known)
    line = [[place.num_bytes / 1e6 for place in best], [place.ratio for place in best]]
    axes.plot(*line, color=colour, linewidth=1, label=side)
    for place in known:
        at = (place.num_bytes / 1e6, place.ratio)
        axes.plot(*at, marker="o", markersize=4, color=colour, markerfacecolor=colour if place in best else "none")
        axes.annotate(place.label, at, (3, 3), textcoords="offset points", fontsize=6, color=colour)


def main(words: list[str] | None = None) -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(words)
    result = json.loads(options.result.read_text(encoding="utf-8"))
    page, text = options.docs / "frontier.md", document(result)
    if options.check:
        fresh = page.is_file() and page.read_text(encoding="utf-8") == text
        fresh = fresh and (options.docs / "frontier.svg").is_file()
        if not fresh:
            print(f"{page.name} is stale: run `python -m scripts.tables.frontier`", file=sys.stderr)
        return int(not fresh)
    options.docs.mkdir(exist_ok=True)
    page.write_text(text, encoding="utf-8")
    draw(result, options.docs / "frontier.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
