"""What does each lever buy? Train and measure every trial of a grid, seed by seed, and keep a row for each.

    python -m scripts.ablate.run                                 # recipes/ablations/tiny.yaml, three seeds
    python -m scripts.ablate.run --list                          # the trials, and which are done
    python -m scripts.ablate.run --only base 'best*' kl_hidden   # trials or levers by name; * matches
    python -m scripts.ablate.run recipes/ablations/smollm2.yaml --threads 2 --seeds 0 \
        --set model.source=smollm2.gguf --text wiki.test.raw --window 2048

Every trial sees the same tokens. It runs in a process of its own (`trial.py`), so that time, CPU time and peak
memory are its own. Its row is written when it ends: an interrupted grid loses one trial, and the same command goes on
with the next. A row counts as done while the words of its trial are what the grid says; `--retry` repeats failed ones.
Trials whose words do not compose are shown and left out. Two calls with other `--only` or `--seeds` may fill one file
side by side, each pinned to a core of its own. `scripts/tables/results.py` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from bitnet_train.config import Config
from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.errors import ConfigError
from scripts import ROOT, module_command
from scripts.ablate.grid import Grid, Trial, read_grid
from scripts.ablate.task import Task, keep_tokens, start_directory

RESULTS = ROOT / "recipes" / "results"
WORKER = "scripts.ablate.trial"
NOTES = ("kind", "lever", "what", "against")  # of a trial, for the tables: a change of these changes no figure
Row = dict[str, Any]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", nargs="?", type=Path, default=ROOT / "recipes" / "ablations" / "tiny.yaml")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="trials or levers; * matches anything")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tokens", type=int, help="tokens of a trial instead of the grid's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="WORD", help="words after all others, for every trial")
    parser.add_argument("--text", type=Path, help="out-of-domain text")
    parser.add_argument("--window", type=int, default=256, help="tokens per window of --text, side by side")
    parser.add_argument("--text-tokens", type=int, default=32768, help="tokens of --text at most")
    parser.add_argument("--out", type=Path, help="result file; recipes/results/ablation_GRID.json unless given")
    parser.add_argument("--work", type=Path, default=Path("runs") / "ablation", help="scratch folder")
    parser.add_argument("--retry", action="store_true", help="run failed trials again")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args(arguments)


def chosen(grid: Grid, options: argparse.Namespace) -> list[Trial]:
    """Return the trials that the command line asks for, `--set` words included."""
    trials = [replace(trial, words=(*trial.words, *options.set)) for trial in grid.trials(options.tokens)]
    if options.only is None:
        return trials
    found = [trial for trial in trials if _is_named(trial, options.only)]
    if not found:
        raise SystemExit(f"`--only {' '.join(options.only)}` names no trial. `--list` shows them.")
    return found


@cache
def configured(recipe: str, words: tuple[str, ...]) -> Config:
    """Return what a trial is configured as, which is read and not changed; `ConfigError` where it cannot be."""
    return compose(recipe, list(words)).config


def runnable(trials: list[Trial]) -> list[Trial]:
    """Return the trials that can run and tell something, and print why the others are left out."""
    kept: list[Trial] = []
    seen: dict[str, str] = {}
    for trial in trials:
        try:
            config = to_yaml(configured(trial.recipe, trial.words)) + str(trial.tokens)
        except ConfigError as error:
            print(f"left out: {trial.name}: {error}")
            continue
        first = seen.setdefault(config, trial.name)
        if first != trial.name and trial.kind == "added":
            print(f"left out: {trial.name}: the same as {first}")
        else:
            kept.append(trial)
    return kept


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a result file; none where there is no file yet."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []


def write_rows(path: Path, grid: Grid, rows: list[Row]) -> None:
    """Replace a result file as a whole, in the order of the grid."""
    order = {trial.name: index for index, trial in enumerate(grid.trials())}
    rows = sorted(rows, key=lambda row: (order.get(row["trial"], len(order)), row["seed"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(
        json.dumps({"grid": grid.name, "best": grid.best, "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )
    draft.replace(path)


def described(trial: Trial, seed: int, options: argparse.Namespace) -> Row:
    """Return what identifies a row."""
    public = [_public(word) for word in trial.words]
    who = {"trial": trial.name, **{key: getattr(trial, key) for key in NOTES}}
    asked = {
        "asked_tokens": trial.tokens,
        "text": options.text.name if options.text else None,
        "window": options.window,
    }
    return {**who, "recipe": trial.recipe, "overrides": public, "seed": seed, **asked}


def is_done(row: Row, rows: list[Row], retry: bool) -> bool:
    """Whether `rows` has the row that `described` identifies."""
    same = [old for old in rows if _asks(old) == _asks(row)]
    return any("error" not in old or not retry for old in same)


def _asks(row: Row) -> Row:
    """What a row was asked to do: of its words those that hold, the last for each key."""
    asked = {key: row.get(key) for key in ("trial", "recipe", "seed", "asked_tokens", "text", "window")}
    return asked | {"overrides": dict(word.split("=", 1) for word in row["overrides"])}


def measure(trial: Trial, seed: int, options: argparse.Namespace) -> Row:
    """Run one trial in a process of its own and return its row, or one that says how it failed."""
    folder = (options.work / f"trial-{os.getpid()}").resolve()  # another part of the grid may run beside this one
    shutil.rmtree(folder, ignore_errors=True)
    directory = start_directory(folder, options.work / "cache")
    length = [f"trainer.max_tokens={trial.tokens}", "trainer.save_every_steps=1000000"]
    fixed = [*length, f"trainer.seed={seed}", f"trainer.num_threads={options.threads}", "logger=none"]
    text = str(options.text.resolve()) if options.text else None
    words = [*trial.words, *fixed]
    task = Task(trial.recipe, words, str(folder), text, options.window, options.text_tokens)
    task_file, row_file = folder / "task.json", folder / "row.json"
    task.write(task_file)
    command = [*module_command(WORKER), task_file, row_file]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    keep_tokens(directory, options.work / "cache")
    found = json.loads(row_file.read_text(encoding="utf-8")) if done.returncode == 0 else {"error": _last(done.stderr)}
    if done.returncode in (130, 143):
        raise KeyboardInterrupt
    shutil.rmtree(folder, ignore_errors=True)
    return {**described(trial, seed, options), **found}


def main(arguments: list[str] | None = None) -> int:
    """List the trials, or run those that have no row yet."""
    options = parse(arguments)
    grid = read_grid(options.grid)
    out = options.out or RESULTS / f"ablation_{grid.name}.json"
    trials = runnable(chosen(grid, options))
    wanted = [(trial, seed) for seed in options.seeds for trial in trials]
    rows = read_rows(out)
    open_ones = [pair for pair in wanted if not is_done(described(*pair, options), rows, options.retry)]
    if options.list:
        missing = {(trial.name, seed) for trial, seed in open_ones}
        for trial, seed in wanted:
            print(f"{'open' if (trial.name, seed) in missing else 'done'}  seed {seed}  {trial.name:<32}{trial.what}")
        return 0
    for number, (trial, seed) in enumerate(open_ones, start=1):
        print(f"{number}/{len(open_ones)}  seed {seed}  {trial.name}", end="  ", flush=True)
        try:
            row = measure(trial, seed, options)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on with this trial")
            return 130
        rows = [old for old in read_rows(out) if (old["trial"], old["seed"]) != (trial.name, seed)] + [row]
        write_rows(out, grid, rows)
        print(_told(row), flush=True)
    return 0


def _is_named(trial: Trial, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns for name in (trial.name, trial.lever or trial.name))


def _public(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key}={Path(value).name}" if value.startswith(("/", "~", ".")) else word


def _last(stderr: str) -> str:
    """Return the last line that was written, of paths only their names."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return re.sub(r"(?:/[\w.+-]+)+/", "", lines[-1]) if lines else "the process ended without a word"


def _told(row: Row) -> str:
    if "error" in row:
        return f"FAILED: {row['error']}"
    parts = [f"{name} {row[name]['ratio']:.3f}x" for name in ("in_domain", "out_of_domain") if row[name]]
    return f"{', '.join(parts)} in {row['seconds']:.0f} s"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that `kill` ends the trial's process too
    sys.exit(main())
