"""Size and memory of the stand-alone program for docs/embed.md: what `scripts/bench/standalone.py` measured."""

from __future__ import annotations

import json

from scripts import RESULTS


def standalone_table() -> list[str]:
    """Return the bytes of the static program for each machine, and the memory that it took with each folder."""
    kept = json.loads((RESULTS / "bench_standalone.json").read_text(encoding="utf-8"))
    programs = [f"| {name} | {size['bytes'] / 1e6:.2f} MB |" for name, size in kept["programs"].items()]
    memory = [
        f"| {row['folder']} | {row['weights_bytes'] / 1e6:.1f} MB | {row['peak_rss_bytes'] / 1e6:.1f} MB |"
        for row in kept["memory"]
    ]
    return [
        "| `bitnet-run`, static, stripped | size |",
        "|---|---|",
        *programs,
        "",
        f"| folder, continued by {kept['memory'][0]['new_tokens']} tokens | weights file | most memory |",
        "|---|---|---|",
        *memory,
    ]
