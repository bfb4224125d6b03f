"""Print what `bench/llama_cpp.py` measured: a table a model, ratios to llama.cpp, and which targets are reached.

python -m scripts.bench.llama_cpp_report [RESULT.json]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from scripts import RESULTS

Measured = dict[str, Any]

# model -> figure -> (least ratio to Q1_0, least ratio to llama.cpp's fastest type); None where there is no such peer
TARGETS: dict[str, dict[str, tuple[float | None, float]]] = {
    "synthetic-1-bit": {"decode": (4.0, 2.5), "prefill": (4.0, 2.0)},
    "synthetic-int8": {"decode": (2.5, 1.8), "prefill": (4.0, 2.0)},
    "smollm2-int8": {"decode": (None, 2.5), "prefill": (None, 2.0)},
}
MEMORY_TARGET = 1.2  # of the artefact plus the cache


def print_report(result: Measured) -> None:
    """Print all models."""
    for name, model in result["models"].items():
        facts = model["facts"]
        print(f"\n## {name}\n\n{facts['date']}, commit {facts['commit']}, {facts['cpu']}\n")
        for peer, reason in model["refused"].items():
            print(f"llama.cpp refuses {peer}: {reason}")
        if model.get("same_model"):
            print("same model: " + ", ".join(f"{key} {_short(value)}" for key, value in model["same_model"].items()))
        for threads in sorted({row["num_threads"] for row in model.get("rows", [])}):
            _print_threads(name, model, threads)
        for row in model.get("contexts", []):
            _print_contexts(row)


def best(rows: list[Measured], figure: str) -> Measured:
    """Return the row with the largest `decode` or `prefill`."""
    return max(rows, key=lambda row: row[f"{figure}_tokens_per_s"])


def verdicts(name: str, model: Measured, threads: int) -> list[tuple[str, float, float]]:
    """Return (what is compared, ratio reached, ratio wanted) for one number of threads."""
    rows = [row for row in model["rows"] if row["num_threads"] == threads]
    ours = next(row for row in rows if row["side"] == "ours")
    peers = [row for row in rows if row["side"] == "llama.cpp"]
    one_bit = [row for row in peers if row["label"].startswith("Q1_0")]
    found = []
    for figure, (over_one_bit, over_best) in TARGETS.get(name, {}).items():
        key = f"{figure}_tokens_per_s"
        if over_one_bit is not None and one_bit:
            found.append((f"{figure} / Q1_0", ours[key] / best(one_bit, figure)[key], over_one_bit))
        fastest = best(peers, figure)
        found.append((f"{figure} / fastest ({fastest['label']})", ours[key] / fastest[key], over_best))
    return found


def _print_threads(name: str, model: Measured, threads: int) -> None:
    print(f"\n| {threads} thread{'s' * (threads > 1)} | prefill tok/s | decode tok/s | ms/token | memory MB | load s |")
    print("|---|---|---|---|---|---|")
    for row in (row for row in model["rows"] if row["num_threads"] == threads):
        memory = row["memory"]["peak"] or row["memory"]["process_peak"] or 0
        load = "" if row["load_s"] is None else f"{row['load_s']:.2f}"
        label = f"{row['side']}: {row['label']}"
        figures = f"{row['prefill_tokens_per_s']:.1f} | {row['decode_tokens_per_s']:.1f} | {row['ms_per_token']:.2f}"
        print(f"| {label} | {figures} | {memory / 1e6:.0f} | {load} |")
    print()
    for what, ratio, wanted in verdicts(name, model, threads):
        print(f"{'reached' if ratio >= wanted else 'MISSED ':<8} {what}: {ratio:.2f}x, wanted {wanted}x")
    ours = next(row for row in model["rows"] if row["num_threads"] == threads and row["side"] == "ours")
    print_memory(ours["memory"], model["artefact_bytes"] + model["cache_bytes"])


def print_memory(memory: Measured, needed: int) -> None:
    """Print what a row of ours held in memory, against the bytes of artefact and cache."""
    for kind in ("resident", "peak"):
        if memory[kind]:
            ratio = memory[kind] / needed
            verdict = "reached" if ratio <= MEMORY_TARGET else "MISSED "
            print(f"{verdict} {kind} memory / (artefact + cache): {ratio:.2f}x, wanted at most {MEMORY_TARGET}x")


def _print_contexts(row: Measured) -> None:
    print(f"\n| context, {row['num_threads']} threads | ms/token | us per token of context |\n|---|---|---|")
    lengths = [int(length) for length in row["ms_per_token"]]
    shortest = lengths[0]
    for length, ms in zip(lengths, row["ms_per_token"].values(), strict=True):
        first = row["ms_per_token"][str(shortest)]
        slope = f"{1000 * (ms - first) / (length - shortest):.3f}" if length > shortest else ""
        print(f"| {length} | {ms:.2f} | {slope} |")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    default = RESULTS / "bench_llama_cpp.json"
    print_report(json.loads((Path(sys.argv[1]) if len(sys.argv) > 1 else default).read_text()))
