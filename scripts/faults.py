"""Do every fault of `tests/faults/table.py`, and keep what came of it in `scripts/results/faults.json`.

    python -m scripts.faults
    python -m scripts.tables.faults     # docs/faults.md from that file

Each fault is done to a process of its own by the tests that the table names. A fault is survived when a test says so
each time; a test that is expected to fail counts as one that was not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import RESULTS, ROOT
from scripts.bench.machine_facts import describe_run
from tests.faults.table import FAULTS, Row

RESULT = RESULTS / "faults.json"
TIMES = "times"  # property of a test that does its fault so often


@dataclass(frozen=True)
class Case:
    """One test that was run: how often it did its fault, whether all were survived, and how long it took."""

    test: str
    times: int
    passed: bool
    skipped: bool
    seconds: float


def cases(report: Path) -> list[Case]:
    """Read what pytest wrote as JUnit XML."""
    return [_case(element) for element in ElementTree.parse(report).iter("testcase")]


def _case(element: ElementTree.Element) -> Case:
    file = element.get("classname", "").replace(".", "/") + ".py"
    properties = {each.get("name"): each.get("value") for each in element.iter("property")}
    return Case(
        f"{file}::{element.get('name', '').partition('[')[0]}",
        int(properties.get(TIMES) or 1),
        not any(element.find(kind) is not None for kind in ("failure", "error", "skipped")),
        element.find("skipped") is not None and element.find("skipped").get("type") != "pytest.xfail",  # type: ignore[union-attr]
        float(element.get("time", 0)),
    )


def outcome(row: Row, done: Iterable[Case]) -> dict[str, Any]:
    """Return what came of a row."""
    own = [case for case in done if case.test in row.tests and not case.skipped]
    return {
        "faults": row.numbers,
        "times": sum(case.times for case in own),
        "survived": sum(case.times for case in own if case.passed),
        "seconds": round(sum(case.seconds for case in own), 1),
    }


def main() -> int:
    """Run the campaign; exit 1 where a fault was not survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="0", help="of pytest-xdist")
    options = parser.parse_args()
    tests = sorted({test for row in FAULTS for test in row.tests})
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"-n{options.processes}"]
        command += [f"--junitxml={report}", "-o", "junit_family=legacy", *tests]  # the one with properties
        subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTEST_ADDOPTS": ""}, check=False)
        done = cases(report)
    rows = [outcome(row, done) for row in FAULTS]
    result = {"facts": describe_run(options), "rows": rows}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(any(row["survived"] < row["times"] or not row["times"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
