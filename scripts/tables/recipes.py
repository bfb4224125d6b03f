"""The table of measured recipes: one row a result file that `tables.results --keep` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.rglob("*.json")))
    summaries = [summary for summary in found if summary.get("stage") == "run"]
    machines = sorted({f"{s['made_by']['cores']} cores, {s['made_by']['machine']}" for s in summaries})
    note = f"Measured on {'; '.join(machines)}; held-out text of each recipe's own data." if summaries else ""
    if any(_names_engine(summary) for summary in summaries):
        note += f" {DECODE_NOTE}"
    return [HEADER, *(_row(summary, link_to) for summary in summaries), "", note, *_by_text(summaries)]


def _by_text(summaries: list[dict[str, Any]]) -> list[str]:
    """Return a row for each text that a recipe was compared with its original on."""
    lines = [
        f"| `{summary['recipe']}` | {text['name']} | {text['tokens']:,} in windows of {text['window_tokens']:,} "
        f"| {text['full_precision']:.2f} | {text['trained']:.2f} | {text['ratio']:.2f} | {text['kl']:.3f} "
        f"| {100 * text['top1_agreement']:.1f} % |"
        for summary in summaries
        for text in summary.get("texts", [])
        if text["ratio"] is not None
    ]
    return ["", *BY_TEXT, *lines] if lines else []


def _row(summary: dict[str, Any], link_to: str) -> str:
    train, perplexity, size = summary["train"], summary["perplexity"], summary["size"]
    cells = [
        f"[`{summary['recipe']}`]({link_to}{summary['recipe']}.yaml)",
        "every latent" if summary["adapter"] == "none" else summary["adapter"],
        f"{train['tokens']:,}",
        f"{train['seconds'] / 60:.1f} min",
        f"{perplexity['full_precision']:.2f}",
        f"{perplexity['swapped']:,.1f}",
        f"{perplexity['trained']:.2f}",
        f"{perplexity['ratio']:.2f}",
        _megabytes(size["fp16_bytes"]),
        _megabytes(size["packed_bytes"] + size["scale_bytes"]),
        _decode(summary),
        summary["validation"],
    ]
    return "| " + " | ".join(cells) + " |"


def _decode(summary: dict[str, Any]) -> str:
    """Return tokens per second of the packed model, and by what where the file says so, with the original's beside."""
    speed = f"{summary['decode_tokens_per_s']:.0f} tok/s"
    if not _names_engine(summary):
        return speed
    original = summary["decode"]["full_precision"]
    return f"{speed} {summary['decode']['packed']['engine']}, original {original['tokens_per_s']:.0f}"


def _names_engine(summary: dict[str, Any]) -> bool:
    return "engine" in summary.get("decode", {}).get("packed", {})


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.2f} MB"
