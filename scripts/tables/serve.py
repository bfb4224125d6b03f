"""Write the figures of docs/serve.md from scripts/results/bench_serve.json, which `scripts.bench.serve` wrote.

python -m scripts.tables.serve            # rewrite the page
python -m scripts.tables.serve --check    # exit 1 where the page is not what the result file says
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from scripts import RESULTS, ROOT
from scripts.tables.page_block import keep_block

PAGE, RESULT = ROOT / "docs" / "serve.md", RESULTS / "bench_serve.json"


def lines(result: dict[str, Any]) -> list[str]:
    """Return the table, a row a server, and what was measured where."""
    facts, rows = result["facts"], result["rows"]
    streams = [str(count) for count in facts["options"]["streams"]]
    table = [
        f"| server | {' | '.join(f'{count} at once' for count in streams)} | gain |",
        f"|---|{'---|' * (len(streams) + 1)}",
        *(_row(label, row, streams) for label, row in rows.items()),
    ]
    told = [
        f"Tokens/s of all streams together; {facts['cpu']}, {facts['options']['threads']} threads, {facts['date']}, "
        f"commit {facts['commit']}.",
    ]
    if result["fastest_other"] is not None:
        most, best = streams[-1], result["fastest_other"]
        told.append(f"With {most} at once ours writes {result['ours_beside_it']} times what {best} does.")
    if result["refused"]:
        told.append(f"llama.cpp has no {', '.join(result['refused'])} for the widths of this model.")
    return [*table, "", *told]


def _row(label: str, row: dict[str, Any], streams: list[str]) -> str:
    rates = " | ".join(f"{row['tokens_per_second'][count]:.0f}" for count in streams)
    return f"| {label} | {rates} | {row['gain']:.2f}x |"


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    return keep_block(PAGE, "figures", "tables.serve", lines(result), check=parser.parse_args().check)


if __name__ == "__main__":
    sys.exit(main())
