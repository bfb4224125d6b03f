"""What a second process is worth: the quickstart by one process and by two, on the same two cores.

    python -m scripts.bench.processes [--quick] [--steps 40] [--rounds 5] [--out FILE]

    one     one process with one thread
    wide    one process with two threads
    two     two processes with one thread each (`trainer.strategy=ddp`): of every step each has half of the rows

Each measurement is a `bitnet-train train quickstart` of its own, held to two cores. Kinds take turns, so that what else
the machine does meets all alike; precision and products are settled once, for all of them. A speed is the median over
the steps of a run after the first few, then over the rounds; a ratio is that of one round, and then the median. Run it
on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from bitnet_train.config.compose import compose
from bitnet_train.run.machine import settle_machine
from bitnet_train.train.trackers.tracking import METRICS_FILE
from scripts import RESULTS
from scripts.bench.machine_facts import describe_run

CORES = 2
KINDS = {"one": (1, 1), "wide": (1, 2), "two": (2, 1)}  # processes and the threads of each
WARM_UP_STEPS = 5
Row = dict[str, Any]


def words(kind: str, arithmetic: list[str], steps: int, folder: Path) -> list[str]:
    """Return the settings of a run, as on the command line."""
    processes, threads = KINDS[kind]
    settings = {
        "trainer.accelerator": "cpu",
        "trainer.devices": processes,
        "trainer.strategy": "ddp" if processes > 1 else "auto",
        "trainer.num_threads": threads,
        "trainer.max_steps": steps,
        "trainer.log_every_steps": 1,
        "trainer.samples": 0,
        "logger": "none",
        "run.dir": folder / "run",
    }
    return [*(f"{name}={value}" for name, value in settings.items()), *arithmetic]


def settled(precision: str, products: str) -> list[str]:
    """Return precision and products as a run would settle them, as words."""
    given = [f"trainer.precision={precision}", f"trainer.products={products}", "trainer.num_threads=1"]
    config = settle_machine(compose("quickstart", given).config, None, Console(file=sys.stderr))[0]
    return [f"trainer.precision={config.trainer.precision}", f"trainer.products={config.trainer.products}"]


def measure(kind: str, arithmetic: list[str], steps: int) -> float:
    """Train in processes of their own; return tokens/s."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "bitnet_train", "train", "quickstart"]
        done = subprocess.run(
            [*command, *words(kind, arithmetic, steps, folder)],
            cwd=folder,
            capture_output=True,
            text=True,
            preexec_fn=hold_to_cores,
        )
        if done.returncode:
            raise SystemExit(f"`{kind}` failed:\n{done.stderr[-2000:]}")
        return speed(folder / "run" / METRICS_FILE)


def hold_to_cores() -> None:
    """Leave this process, and what it starts, the first `CORES` of the cores that it may run on."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def speed(metrics: Path) -> float:
    """Return the median tokens/s of the steps after the first ones."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return median(line["tokens_per_s"] for line in lines if line.get("step", 0) > WARM_UP_STEPS and "loss" in line)


def summary(rounds: list[dict[str, float]]) -> list[Row]:
    """Return a row a kind: its speed, and how often that of `one`."""
    return [
        {
            "kind": kind,
            "processes": processes,
            "threads": threads,
            "tokens_per_s": median(each[kind] for each in rounds),
            "ratio": median(each[kind] / each["one"] for each in rounds),
        }
        for kind, (processes, threads) in KINDS.items()
    ]


def main() -> None:
    """Measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--products", default="auto", choices=("auto", "float", "forward", "integer"))
    parser.add_argument("--quick", action="store_true", help="8 steps, one round")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_processes.json")
    chosen = parser.parse_args()
    if len(os.sched_getaffinity(0)) < CORES:
        raise SystemExit(f"{CORES} cores are compared, and this process may run on one alone.")
    if chosen.quick:
        chosen.steps, chosen.rounds = WARM_UP_STEPS + 3, 1
    arithmetic = settled(chosen.precision, chosen.products)
    rounds: list[dict[str, float]] = []
    for number in range(1, chosen.rounds + 1):
        rounds.append({kind: measure(kind, arithmetic, chosen.steps) for kind in KINDS})
        print(f"round {number}: " + ", ".join(f"{kind} {found:.0f}" for kind, found in rounds[-1].items()), flush=True)
    rows = summary(rounds)
    kept = {"run": describe_run(chosen), "arithmetic": arithmetic, "rows": rows, "rounds": rounds}
    chosen.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(*(f"{row['kind']:<5}{row['tokens_per_s']:8.0f} tokens/s  x {row['ratio']:.2f}" for row in rows), sep="\n")


if __name__ == "__main__":
    main()
