"""Where the stages of a run find the planes that were chosen for `weight.budget_mb`: before the run's own overrides."""

from __future__ import annotations

from pathlib import Path

from bitnet_train.config import Config
from bitnet_train.model.overrides import Override, read_overrides
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import PlanesFacts


def overrides_of(config: Config) -> tuple[Override, ...]:
    """Return the entries that decide how layers differ: those that were chosen, then the configuration's, which win."""
    chosen = kept_planes(config)
    entries = (*(() if chosen is None else chosen.overrides), *config.weight.overrides)
    return read_overrides(entries, config.weight.scheme)


def kept_planes(config: Config) -> PlanesFacts | None:
    """Return what was chosen for this run; None before that, and where nothing has to be chosen."""
    if config.weight.budget_mb is None or config.run.dir is None:
        return None
    return RunDirectory(Path(config.run.dir)).kept(PlanesFacts)
