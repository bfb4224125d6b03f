"""Write docs/faults.md from the table of faults and the result file of `scripts/faults.py`.

python -m scripts.tables.faults             # rewrite docs/faults.md
python -m scripts.tables.faults --check     # exit 1 if docs/faults.md is not what table and result file say
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from scripts import RESULTS, ROOT
from tests.faults.table import FAULTS

RESULT = RESULTS / "faults.json"
PAGE = ROOT / "docs" / "faults.md"
HEAD = """# Faults

Written by `scripts/tables/faults.py` from `tests/faults/table.py` and a result file of `scripts/faults.py`; no figure
is typed. Each fault is done to a process of its own of the real command line, on the bundled model, by
`pytest -m faults`, and where the table says bitwise, what trains and the optimiser's moments are compared with those of
a run that nothing happened to."""


def read_result() -> dict[str, Any]:
    """Return the result file."""
    return json.loads(RESULT.read_text(encoding="utf-8"))


def document(result: dict[str, Any]) -> str:
    """Return docs/faults.md."""
    facts, found = result["facts"], {row["faults"]: row for row in result["rows"]}
    times, survived, seconds = (sum(row[name] for row in found.values()) for name in ("times", "survived", "seconds"))
    kinds = sum(row.last - row.first + 1 for row in FAULTS if _is_survived(found.get(row.numbers)))
    lines = [
        HEAD,
        "",
        f"{kinds} of {sum(row.last - row.first + 1 for row in FAULTS)} kinds survived, {survived} of {times} times, in "
        f"{seconds:.0f} seconds of tests. {facts['date']}, commit {facts['commit']}, {facts['cpu']}, torch "
        f"{facts['made_by']['torch']}.",
        "",
        "| | what is done | what must come of it | times | survived | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in FAULTS:
        came = found.get(row.numbers, {"times": 0, "survived": 0, "seconds": 0.0})
        cells = (row.numbers, row.fault, row.expected, came["times"], came["survived"], f"{came['seconds']:.0f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def _is_survived(came: dict[str, Any] | None) -> bool:
    return came is not None and 0 < came["times"] == came["survived"]


def main() -> int:
    """Check or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    text = document(read_result())
    if parser.parse_args().check:
        is_fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text
        if not is_fresh:
            print("docs/faults.md is stale: run `python -m scripts.tables.faults`", file=sys.stderr)
        return int(not is_fresh)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
