"""Write the table of docs/fuzz.md from scripts/results/fuzz.json, which `python -m scripts.fuzz --all` wrote.

python -m scripts.tables.fuzz            # rewrite the page
python -m scripts.tables.fuzz --check    # exit 1 where the page is not what the result file says
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from scripts import ROOT
from scripts.fuzz.__main__ import RESULT
from scripts.fuzz.targets import TARGETS
from scripts.tables.page_block import keep_block

PAGE = ROOT / "docs" / "fuzz.md"


def lines(result: dict[str, Any]) -> list[str]:
    """Return the table, a row a target in the order of `targets.py`, and what made it."""
    rows = result["targets"]
    total = {
        key: sum(row[key] for row in rows.values()) for key in ("count", "refused", "worked", "defects", "seconds")
    }
    return [
        "| target | what must come of it | cases | refused | worked | defects | slowest, CPU | in every test run |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(name, rows[name]) for name in TARGETS if name in rows),
        f"| **all** | | {total['count']:,} | {total['refused']:,} | {total['worked']:,} | {total['defects']} | | "
        f"{sum(target.in_tests for target in TARGETS.values()):,} |",
        "",
        f"{result['machine']}, Python {result['python']}, {result['date']}, seed {result['seed']}; "
        f"{total['seconds'] / 60:.0f} minutes in all, other work beside it.",
    ]


def _row(name: str, row: dict[str, Any]) -> str:
    target = TARGETS[name]
    cells = (f"`{name}`", target.oracle, f"{row['count']:,}", f"{row['refused']:,}", f"{row['worked']:,}")
    return "| " + " | ".join((*cells, str(row["defects"]), f"{row['slowest_s']:.2f} s", f"{target.in_tests:,}")) + " |"


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    return keep_block(PAGE, "targets", "tables.fuzz", lines(result), check=parser.parse_args().check)


if __name__ == "__main__":
    sys.exit(main())
