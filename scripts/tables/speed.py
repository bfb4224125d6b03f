"""Size and speed for docs/speed.md: from finished runs, and from result files of `scripts/bench`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bitnet_train.run.result import RunFacts
from scripts import RESULTS as MEASURED
from scripts.tables.choose import choices

STEPS = ("bench_distil_step.json", "bench_distil_step_avx2.json")
KINDS = {
    "plain": "`nn.Linear`, plain distillation",
    "float": "1-bit layers, products in floats",
    "forward": "1-bit layers, forward in integers",
    "integer": "1-bit layers, forward and gradients in integers",
}
MODELS = {"tiny": "the bundled one", "small": "a small Llama", "smollm2": "SmolLM2-135M"}  # of `bench/memory.py`
Row = dict[str, Any]


def size_table(results: Path) -> list[str]:
    """Return sizes of the packed folders beside their originals."""
    head = [
        "| recipe | 1-bit layers, fp16 | packed | times | folder, tokenizer and all | original file |",
        "|---|---|---|---|---|---|",
    ]
    return [*head, *(_size(each.facts) for each in choices(results) if each.facts)]


def _size(facts: RunFacts) -> str:
    layers, packed = facts.size.layers.fp16_bytes, facts.size.one_bit_bytes
    folder, original = facts.size.folder, facts.size.original_bytes
    cells = (
        f"`{facts.recipe}`",
        _megabytes(layers),
        _megabytes(packed),
        f"{layers / packed:.1f}",
        "not recorded" if folder is None else _megabytes(folder.folder_bytes),
        "not recorded" if original is None else _megabytes(original),
    )
    return "| " + " | ".join(cells) + " |"


def decode_table() -> list[str]:
    """Return prefill and decoding of the native runtime beside llama.cpp's types of the same weights."""
    models = json.loads((MEASURED / "bench_llama_cpp.json").read_text(encoding="utf-8"))["models"]
    lines: list[str] = []
    for name, model in models.items():
        lines += [f"**{name}**, {_machine(model['facts'])}:", "", *_peers(model), ""]
    return lines[:-1]


def _peers(model: Row) -> Iterator[str]:
    threads = sorted({row["num_threads"] for row in model["rows"]})
    yield "| by | MB | " + " | ".join(f"prefill, {n} thr. | decode, {n} thr." for n in threads) + " |"
    yield "|---" * (2 + 2 * len(threads)) + "|"
    rows = [row for row in model["rows"] if row["label"] != "modules"]
    for label in dict.fromkeys((row["side"], row["label"]) for row in rows):
        size = model["artefact_bytes"] if label[0] == "ours" else model["gguf_bytes"].get(label[1])
        speeds = {row["num_threads"]: row for row in rows if (row["side"], row["label"]) == label}
        cells = [_speed(speeds.get(n), figure) for n in threads for figure in ("prefill", "decode")]
        who = "**ours**" if label[0] == "ours" else f"llama.cpp {label[1]}"
        yield f"| {who} | {'' if size is None else f'{size / 1e6:.1f}'} | {' | '.join(cells)} |"


def _speed(row: Row | None, figure: str) -> str:
    return "" if row is None else f"{row[f'{figure}_tokens_per_s']:.0f}"


def step_table() -> list[str]:
    """Return what a training step takes, by how it multiplies."""
    lines: list[str] = []
    for name in STEPS:
        result = json.loads((MEASURED / name).read_text(encoding="utf-8"))
        run, options = result["run"], result["run"]["options"]
        held = f", held to {options['narrowed']}" if options["narrowed"] else ""
        about = f"{_machine(run)}{held}, {options['threads']} threads, a row of {options['tokens']} tokens:"
        lines += [
            about,
            "",
            "| layers | precision | tokens/s | speed | memory | memory, ratio |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_step(row) for row in result["rows"]] + [""]
    return lines[:-1]


def _step(row: Row) -> str:
    speed, memory = f"{row['tokens_per_s']:.0f}", f"{row['memory_mb'] / 1000:.2f} GB"
    ratios = (f"{row['speed_ratio']:.2f}", f"{row['memory_ratio']:.2f}")
    return f"| {KINDS[row['kind']]} | {row['precision']} | {speed} | {ratios[0]} | {memory} | {ratios[1]} |"


def memory_table() -> list[str]:
    """Return what `train --dry-run` says that training takes beside what it took."""
    rows = json.loads((MEASURED / "bench_memory.json").read_text(encoding="utf-8"))["rows"]
    head = [
        "| model | parameters | precision, products | rows x tokens | estimate | measured | ratio |",
        "|---" * 7 + "|",
    ]
    return [*head, *map(_memory, rows)]


def _memory(row: Row) -> str:
    cells = (
        MODELS[row["size"]],
        f"{row['parameters'] / 1e6:.1f} million",
        f"{row['precision']}, {row['products']}",
        f"{row['micro_rows']} x {row['row_tokens']}",
        f"{row['estimate']['most'] / 1e9:.2f} GB",
        f"{row['measured'] / 1e9:.2f} GB",
        f"{row['ratio']:.2f}",
    )
    return "| " + " | ".join(cells) + " |"


def processes_table() -> list[str]:
    """Return what a second thread and a second process are worth on two cores."""
    kept = json.loads((MEASURED / "bench_processes.json").read_text(encoding="utf-8"))
    head = [f"{_machine(kept['run'])}:", "", "| processes | threads of each | tokens/s | speed |", "|---" * 4 + "|"]
    return [
        *head,
        *(
            f"| {row['processes']} | {row['threads']} | {row['tokens_per_s']:,.0f} | {row['ratio']:.2f} |"
            for row in kept["rows"]
        ),
    ]


def cache_table() -> list[str]:
    """Return what a token costs after so many, by the type of the cache and the number of threads."""
    kept = json.loads((MEASURED / "bench_kv_cache.json").read_text(encoding="utf-8"))
    lengths = kept["facts"]["options"]["lengths"]
    head = [
        f"{_machine(kept['facts'])}, milliseconds a token after so many:",
        "",
        f"| keys and values | threads | {' | '.join(f'{length:,}' for length in lengths)} | last / first | cache |",
        "|---" * (4 + len(lengths)) + "|",
    ]
    return [*head, *(_cache(kind, *row) for kind in ("float32", "int8") for row in kept["threads"].items())]


def _cache(kind: str, threads: str, row: Row) -> str:
    steps = [f"{ms:.1f}" for ms in row["step_ms"][kind].values()]
    ratio = f"{row['longest_beside_shortest'][kind]:.1f}"
    return "| " + " | ".join((kind, threads, *steps, ratio, _megabytes(row["cache_bytes_longest"][kind]))) + " |"


def _machine(facts: Row) -> str:
    return f"{facts['cpu'].partition(' (')[0]}, {facts['date']}, commit {facts['commit']}"


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.1f} MB"
