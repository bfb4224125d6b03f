"""`bitnet-train report`: the page of a run made anew from its files, or several runs compared in one page.

Nothing is loaded and no run is held: a run that another process is about can be looked at as it goes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitnet_train.config.layout import recipes
from bitnet_train.config.suggest import did_you_mean
from bitnet_train.errors import ConfigError
from bitnet_train.progress import open_console
from bitnet_train.report.run_files import RunFiles, is_run
from bitnet_train.report.run_status import status_of
from bitnet_train.run.report import COMPARED_FILE, REPORT_FILE, write_comparison, write_report
from bitnet_train.verbs import Call
from bitnet_train.verbs.serve import composed
from bitnet_train.word_as_path import is_folder, path_of

_MOST_SHOWN = 120  # characters of a word that names nothing
_INSIDE_RUNS = ("artefact", "merged", "facts", "checkpoints", "exports")


def report(call: Call) -> dict[str, Any]:
    """Write the page and say where it lies; raises ConfigError for a word that names no run."""
    config = composed(call)
    roots = [_run(word) for word in call.words]
    if not roots:
        raise ConfigError(
            "Name a run, or several to compare: `bitnet-train report runs/mine`. `bitnet-train ls runs` lists runs."
        )
    twice = next((root for at, root in enumerate(roots) if root.resolve() in {r.resolve() for r in roots[:at]}), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named twice. Name each run once.")
    given = None if config.report.to is None else Path(config.report.to)
    if given is not None and is_folder(given):
        raise ConfigError(f"`report.to={given}` is a folder. Name a file in it, such as {given / REPORT_FILE}.")
    if len(roots) == 1:
        place, runs = given or roots[0] / REPORT_FILE, [write_report(roots[0], given)]
    else:
        place, runs = given or roots[0] / COMPARED_FILE, write_comparison(roots, given)
    _tell(call, place, runs)
    return {
        "report": str(place),
        "runs": [{"run": str(run.root), "status": status_of(run).word, "missing": list(run.faults)} for run in runs],
    }


def _run(word: str) -> Path:
    """Return the run directory that a word names."""
    path = path_of(word)
    shown = word if len(word) <= _MOST_SHOWN else f"{word[:_MOST_SHOWN]}..."
    if not is_folder(path):
        what = "a recipe, and a report is made of a run" if word in recipes() else "no folder"
        hint = "" if word in recipes() else did_you_mean(word, [str(each) for each in _beside(path)])
        raise ConfigError(f"`{shown}` is {what}.{hint} `bitnet-train ls runs` lists runs.")
    if is_run(path):
        return path
    if path.absolute().name in _INSIDE_RUNS and is_run(path.absolute().parent):
        raise ConfigError(f"{shown} lies inside a run. Name the run: `bitnet-train report {path.absolute().parent}`.")
    raise ConfigError(
        f"{shown} is no run directory: it has no config.yaml, no facts and no metrics.jsonl. `bitnet-train ls runs` "
        "lists runs."
    )


def _beside(path: Path) -> list[Path]:
    return [each for each in path.parent.iterdir() if each.is_dir()] if is_folder(path.parent) else []


def _tell(call: Call, place: Path, runs: list[RunFiles]) -> None:
    console = open_console(call.quiet)
    for run in runs:
        status = status_of(run)
        console.print(f"{run.root}: {status.word}. {status.said}", markup=False, soft_wrap=True)
        for fault in run.faults:
            console.print(f"missing: {fault}", markup=False, soft_wrap=True)
    console.print(f"Report: {place}", markup=False, soft_wrap=True)
