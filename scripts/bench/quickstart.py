"""Measure `bitnet-train run quickstart`, process start to result: how long each step takes, and what it prints.

    python -m scripts.bench.quickstart             # as this machine is
    python -m scripts.bench.quickstart --as avx2   # as most laptops are: its libraries held to AVX2, no bf16
    python -m scripts.bench.quickstart --tables    # write README's table anew from all result files
    python -m scripts.bench.quickstart --check     # exit 1 if that table is not what they say

One result file a kind of machine, `scripts/results/quickstart_KIND.json`. Run it on an idle machine: it is timed whole.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import MachineFacts
from bitnet_train.run.result import RunFacts
from scripts import RESULTS, ROOT
from scripts.bench.machine_facts import describe_run
from scripts.tables.page_block import keep_block

PAGE = ROOT / "README.md"
KINDS = ("amx", "avx512_bf16", "avx512", "avx2", "other")
NARROWER = {
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "BITNET_TRAIN_ISA": "avx2",
    }
}
COMMANDS = {"quickstart": ["run", "quickstart"], "quick": ["run", "quickstart", "--quick"]}
Facts = dict[str, Any]


def machine_kind() -> str:
    """Return the widest of `KINDS` that this processor has."""
    try:
        flags = set(re.findall(r"\w+", Path("/proc/cpuinfo").read_text()))
    except OSError:
        return "other"
    for kind, flag in zip(KINDS, ("amx_bf16", "avx512_bf16", "avx512f", "avx2"), strict=False):
        if flag in flags:
            return kind
    return "other"


def measure(words: list[str], environment: dict[str, str]) -> Facts:
    """Run one command in a new folder; return its seconds, those of its steps, what they print, and the result."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bitnet_train", *words, f"run.dir={folder}/run", "logger=none"]
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "COLUMNS": "100", **environment}, capture_output=True, text=True
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"bitnet-train {' '.join(words)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        directory = RunDirectory(Path(folder) / "run")
        facts, machine = directory.kept(RunFacts), directory.kept(MachineFacts)
    assert facts is not None, "a whole run keeps its summary"
    assert machine is not None, "and what it settled of the machine"
    summary = facts.to_dict()
    return {
        "command": f"bitnet-train {' '.join(words)}",
        "seconds": seconds,
        "stage_seconds": facts.stage_seconds,
        "prints": last_lines(done.stdout.replace(f"{folder}/", "")),
        "result": {name: summary[name] for name in ("perplexity", "size", "train", "decode", "validation")},
        "arithmetic": machine.why,
        "threads": machine.num_threads,
    }


def last_lines(printed: str) -> dict[str, str]:
    """Return the last line that each step of a run prints; a step begins with a rule that names it."""
    lines: dict[str, str] = {}
    step = None
    for line in printed.splitlines():
        if found := re.fullmatch(r"─+ (\w+) ─+", line.strip()):
            step = found[1]
        elif step is not None and line.strip():
            lines[step] = line.strip()
    return lines


def table() -> list[str]:
    """Return README's lines: a row a step, a column a kind of machine."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("quickstart_*.json"))]
    kinds = sorted(found, key=lambda each: KINDS.index(each["kind"]))
    whole = [each["quickstart"] for each in kinds]
    head = ["step", "last line that it prints", *(f"{each['kind']}" for each in kinds)]
    rows = [
        [name, f"`{whole[0]['prints'].get(name, '')}`", *(f"{each['stage_seconds'][name]:.1f} s" for each in whole)]
        for name in whole[0]["stage_seconds"]
    ]
    for name, words in COMMANDS.items():
        cells = [f"**{each[name]['seconds']:.0f} s**" for each in kinds]
        ratios = ", ".join(f"{each[name]['result']['perplexity']['ratio']:.2f}" for each in kinds)
        rows.append([f"**`bitnet-train {' '.join(words)}`**", f"perplexity ratio {ratios}", *cells])
    notes = [
        f"- {each['kind']}: {each['cpu'].split(' (')[0]}, {each['quickstart']['threads']} threads"
        f"{', held to AVX2' if each['imitated'] else ''}; {each['quickstart']['arithmetic']}. {each['date']}."
        for each in kinds
    ]
    return [*("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)), "", *notes]


def main() -> int:
    """Measure, or write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--as", dest="kind", choices=sorted(NARROWER), help="a narrower machine to imitate")
    parser.add_argument("--tables", action="store_true", help="write README's table and measure nothing")
    parser.add_argument("--check", action="store_true", help="compare README's table and measure nothing")
    options = parser.parse_args()
    if not (options.tables or options.check):
        kind = options.kind or machine_kind()
        environment = NARROWER.get(options.kind, {})
        measured = {name: measure(words, environment) for name, words in COMMANDS.items()}
        facts = {"kind": kind, "imitated": options.kind is not None, **describe_run(options), **measured}
        (RESULTS / f"quickstart_{kind}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return keep_block(PAGE, "steps", "bench.quickstart", table(), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
