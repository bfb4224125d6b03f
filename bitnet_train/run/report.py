"""`RUN/report.html`: the report of a run, made of its own files alone, whenever a stage ends and as training goes.

A report never ends a run: where it cannot be written, that is said once and the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from bitnet_train.config.check import flatten
from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.config.continued import changes
from bitnet_train.config.layout import recipes
from bitnet_train.config.older import as_it_ran
from bitnet_train.config.target import read_saved
from bitnet_train.errors import ConfigError
from bitnet_train.importers.found import RUN_FILE
from bitnet_train.progress import warn
from bitnet_train.report.compare import compare_document
from bitnet_train.report.html import render_html
from bitnet_train.report.run_document import run_document
from bitnet_train.report.run_files import Recipe, RunFiles, Worker, read_run
from bitnet_train.run.lock import LOCK_FILE, owner_of
from bitnet_train.run.ranks import rank
from bitnet_train.train.trackers.redaction import redact, redact_text
from bitnet_train.whole import write_whole

REPORT_FILE, COMPARED_FILE = "report.html", "report_compare.html"
_told: set[Path] = set()


def refresh(root: Path) -> None:
    """Write the report of a run anew, in its first process. What hinders that is said once and ends nothing."""
    if rank() > 0:
        return
    try:
        write_report(root)
    except Exception as error:  # whatever a file holds, a disk refuses or a page cannot show: it is no reason to stop
        if root not in _told:
            _told.add(root)
            warn(f"{root / REPORT_FILE} is not written: {error}")


def write_report(root: Path, place: Path | None = None) -> RunFiles:
    """Write the report of a run to `place`, None = into the run, and return what it was made of. Raises DiskError."""
    run = read_files(root)
    write_whole(place or root / REPORT_FILE, render_html(run_document(run)))
    return run


def write_comparison(roots: Sequence[Path], place: Path | None = None) -> list[RunFiles]:
    """Write a page on several runs to `place`, None = into the first. Raises DiskError."""
    runs = [read_files(root) for root in roots]
    write_whole(place or roots[0] / COMPARED_FILE, render_html(compare_document(runs)))
    return runs


def read_files(root: Path) -> RunFiles:
    """Return what a run directory holds, its configuration without secrets, and what it lacks."""
    try:
        saved = as_it_ran(read_saved(root / RUN_FILE))
    except ConfigError as error:
        return read_run(root, worker=_worker(root), faults=(f"{RUN_FILE} is not shown: {error}",))
    return read_run(root, redact(saved), _held_against_its_recipe(saved), _worker(root))


def _worker(root: Path) -> Worker | None:
    """Return who holds a run, if that process lives."""
    owner = owner_of(root)
    if owner is None or not owner.process.lives:
        return None
    try:
        return Worker(str(owner.what), str(owner.since), (root / LOCK_FILE).stat().st_mtime_ns)
    except OSError:
        return None


def _held_against_its_recipe(saved: Mapping[str, Any]) -> Recipe:
    """Return the keys that differ from the recipe; from the defaults where that recipe is not one of this package."""
    named = saved.get("recipe")
    is_bundled = isinstance(named, str) and named in recipes()
    there = _recipe_values(named if is_bundled else None)
    found = changes(there, flatten(dict(saved)), "fixed", "trained", "verbs")
    shown = {name: (redact(before, name), redact(now, name)) for name, (before, now) in found.items()}
    if is_bundled:
        return Recipe(f"the recipe {named}", shown)
    own = f"; the recipe {redact_text(str(named))} is a file of its own" if named not in (None, "none") else ""
    return Recipe(f"the defaults{own}", shown)


@lru_cache(maxsize=8)
def _recipe_values(name: str | None) -> Mapping[str, Any]:
    return flatten(yaml.safe_load(to_yaml(compose(name).config)))
