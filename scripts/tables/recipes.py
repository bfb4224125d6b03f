"""The table of measured recipes: one row a result file that `tables.results --keep` wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from bitnet_train.run.result import RunFacts

HEADER = (
    "| recipe | what trains | tokens | time | ppl FP | ppl swapped | ppl trained | ratio | layers fp16 | layers packed "
    "| decode | validation |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)
DECODE_NOTE = (
    "Decoding is greedy, on every core: the packed model in the native runtime, the original through transformers in "
    "float32. Where no engine is named, transformers ran the packed model too."
)
BY_TEXT = (
    "The same by text, where a result file holds it:",
    "",
    "| recipe | text | tokens | ppl FP | ppl trained | ratio | KL | top-1 |",
    "|---|---|---|---|---|---|---|---|",
)


def recipe_table(results: Path, link_to: str) -> list[str]:
    """Return the lines of the table; `link_to` leads from the page to the folder of recipes."""
    summaries = list(_results(results))
    machines = sorted({summary.frame.machine for summary in summaries if summary.frame is not None})
    note = f"Measured on {'; '.join(machines)}; held-out text of each recipe's own data." if summaries else ""
    if any(_names_engine(summary) for summary in summaries):
        note += f" {DECODE_NOTE}"
    return [HEADER, *(_row(summary, link_to) for summary in summaries), "", note, *_by_text(summaries)]


def _results(folder: Path) -> Iterator[RunFacts]:
    """Yield what runs came to, of the files of a folder; results of other kinds lie there too."""
    for path in sorted(folder.rglob("*.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("stage") == RunFacts.stage:
            yield RunFacts.from_dict(values, str(path))


def _by_text(summaries: list[RunFacts]) -> list[str]:
    """Return a row for each text that a recipe was compared with its original on."""
    lines = [
        f"| `{summary.recipe}` | {text.name} | {text.tokens:,} in windows of {text.window_tokens:,} "
        f"| {text.full_precision:.2f} | {text.trained:.2f} | {text.ratio:.2f} | {text.kl:.3f} "
        f"| {100 * (text.top1_agreement or 0.0):.1f} % |"
        for summary in summaries
        for text in summary.texts
        if text.ratio is not None
    ]
    return ["", *BY_TEXT, *lines] if lines else []


def _row(summary: RunFacts, link_to: str) -> str:
    train, perplexity, layers = summary.train, summary.perplexity, summary.size.layers
    cells = [
        f"[`{summary.recipe}`]({link_to}{summary.recipe}.yaml)",
        "every latent" if summary.adapter == "none" else summary.adapter,
        f"{train.tokens:,}",
        f"{train.seconds / 60:.1f} min",
        f"{perplexity.full_precision:.2f}",
        f"{perplexity.swapped:,.1f}",
        f"{perplexity.trained:.2f}",
        f"{perplexity.ratio:.2f}",
        _megabytes(layers.fp16_bytes),
        _megabytes(summary.size.one_bit_bytes),
        _decode(summary),
        summary.validation,
    ]
    return "| " + " | ".join(cells) + " |"


def _decode(summary: RunFacts) -> str:
    """Return tokens per second of the packed model, and by what where the file says so, with the original's beside."""
    speed, decode = f"{summary.decode_tokens_per_s:.0f} tok/s", summary.continued.decode
    if not _names_engine(summary):
        return speed
    return f"{speed} {decode.packed.engine}, original {decode.full_precision.tokens_per_s:.0f}"


def _names_engine(summary: RunFacts) -> bool:
    return summary.continued.decode.packed.engine is not None


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.2f} MB"
