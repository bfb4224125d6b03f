"""Fuzz one target, or all at their full counts, and keep how they went.

python -m scripts.fuzz gguf_check                        # at its count of `targets.py`
python -m scripts.fuzz gguf_check --count 100000 --seed 7
python -m scripts.fuzz gguf_check --first 4711 --count 1 # repeats one case, with its traceback
python -m scripts.fuzz --all                             # every target; writes scripts/results/fuzz.json
python -m scripts.fuzz hf_bitnet --keep                  # one target anew into that file, as after a mend
python -m scripts.fuzz --atheris gguf_check              # guided by coverage: `pip install atheris`
python -m scripts.fuzz --list
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts import RESULTS
from scripts.fuzz.campaign import Tally, run_target
from scripts.fuzz.targets import TARGETS, Target

RESULT = RESULTS / "fuzz.json"
_LINE_EVERY_S = 10.0
_SHOWN, _LETTERS = 8, 400  # defects of one target, and of the last line of each


def main() -> int:
    """Run what was asked for; 1 when there is a defect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", choices=list(TARGETS))
    parser.add_argument("--all", action="store_true", help="every target at its full count, and keep the result")
    parser.add_argument(
        "--keep", action="store_true", help="put the row of this target, at its full count, into the result"
    )
    parser.add_argument("--list", action="store_true", help="the table of targets")
    parser.add_argument("--atheris", action="store_true", help="mutate by coverage until stopped; see `guided.py`")
    parser.add_argument("--count", type=int, help="cases; default: those of the table")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slack", type=float, default=1.0, help="times the seconds of CPU a case may take")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(f"{target.name:18}{target.count:6}  {target.oracle}" for target in TARGETS.values()))
        return 0
    if asked.all == (asked.target is not None):
        parser.error("name a target, or give --all")
    if asked.atheris:
        from scripts.fuzz.guided import run_guided

        return run_guided(asked.target, asked.count)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if asked.all:
        return _keep(TARGETS.values(), asked.seed, asked.slack)
    if asked.keep:
        return _keep([TARGETS[asked.target]], asked.seed, asked.slack)
    count = TARGETS[asked.target].count if asked.count is None else asked.count
    tally = _run(TARGETS[asked.target], range(asked.first, asked.first + count), asked.seed, asked.slack)
    return int(bool(tally.defects))


def _keep(targets: Iterable[Target], seed: int, slack: float) -> int:
    """Run targets at their full counts, and put how they went into the result file."""
    rows = {target.name: _row(_run(target, range(target.count), seed, slack)) for target in targets}
    before = json.loads(RESULT.read_text(encoding="utf-8"))["targets"] if RESULT.is_file() else {}
    kept = {name: rows.get(name, before.get(name)) for name in TARGETS if name in rows or name in before}
    RESULT.write_text(json.dumps({**_made_by(), "seed": seed, "targets": kept}, indent=1) + "\n", encoding="utf-8")
    print(f"Kept in {RESULT}")
    return int(any(row["defects"] for row in rows.values()))


def _run(target: Target, numbers: range, seed: int, slack: float) -> Tally:
    tally = run_target(target.name, numbers, seed, slack=slack, say=_every_now_and_then(target.name, len(numbers)))
    print(
        f"{target.name}: {tally.count} cases in {tally.seconds:.0f} s, {tally.refused} refused, {tally.works} worked, "
        f"{len(tally.defects)} defects; the slowest took {tally.slowest_s:.3f} s of CPU (case {tally.slowest_case})"
    )
    for number, what in _of_each_kind(tally.defects):
        again = f"python -m scripts.fuzz {target.name} --first {number} --count 1 --seed {seed}"
        print(f"\ncase {number}: `{again}`\n{what if len(numbers) == 1 else _shortly(what)}")
    return tally


def _of_each_kind(defects: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return the first of the defects that end in the same words."""
    kinds = {_shortly(what)[-60:]: (number, what) for number, what in reversed(defects)}
    return sorted(kinds.values())[:_SHOWN]


def _shortly(what: str) -> str:
    """Return what a traceback ends with."""
    at = what.rfind("\nAssertionError: ")
    lines = what.strip().splitlines()[-1:] if at < 0 else what[at:].split()
    return " ".join(lines)[:_LETTERS]


def _every_now_and_then(name: str, count: int) -> Callable[[Tally], None]:
    last = time.monotonic()

    def say(tally: Tally) -> None:
        nonlocal last
        if time.monotonic() - last > _LINE_EVERY_S:
            last = time.monotonic()
            print(f"{name}: {tally.count} of {count}, {len(tally.defects)} defects", file=sys.stderr, flush=True)

    return say


def _row(tally: Tally) -> dict[str, Any]:
    return {
        "count": tally.count,
        "refused": tally.refused,
        "worked": tally.works,
        "defects": len(tally.defects),
        "slowest_s": round(tally.slowest_s, 3),
        "seconds": round(tally.seconds, 1),
    }


def _made_by() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{model or platform.processor() or platform.machine()}, {os.cpu_count()} threads",
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
