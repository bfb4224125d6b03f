"""What a run was trained under, kept with what was trained, and held against what is asked of it later.

    config.yaml                             what the run was last told: every stage reads it
    checkpoints/step-000120/manifest.json   `settings`: what these weights were trained under; a later edit of
                                            config.yaml cannot change that
    facts/continued.json                    one entry a change: the step from which on, and each key, old and new

`config/continued.py` says which keys may change. Checkpoints of before there were `settings` are held against
config.yaml alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bitnet_train.config.check import flatten
from bitnet_train.config.compose import to_yaml
from bitnet_train.config.continued import ASKED_ANEW, CALL, Change, changes, has_moved, names_of, told
from bitnet_train.config.older import as_it_ran
from bitnet_train.config.schema import Config
from bitnet_train.config.seal import is_edited
from bitnet_train.config.target import read_saved
from bitnet_train.errors import ConfigError, TrainingError
from bitnet_train.run.ranks import rank
from bitnet_train.run.saved_config import write_saved
from bitnet_train.train.loop.checkpoint_manifest import find_readable, read_manifest, step_of
from bitnet_train.train.loop.resume_choice import check_choice, resume_from

CONFIG, CHECKPOINTS = "config.yaml", "checkpoints"
CONTENT = "data.content_sha256"  # of the text itself, among the settings that a checkpoint keeps
Settings = dict[str, Any]


def settings_of(config_yaml: str) -> Settings:
    """Return what a checkpoint keeps of a configuration: the value of every key that training reads, by dotted key."""
    values = flatten(yaml.safe_load(config_yaml))
    return {name: values[name] for name in names_of("fixed", "trained")}


def is_other_text(config: Config, content_sha256: str) -> bool:
    """Whether a run goes on with other text than its checkpoint was trained on: the same path is not the same words."""
    checkpoint = _continued(config)
    kept = _kept_settings(checkpoint).get(CONTENT) if checkpoint is not None else None
    return kept not in (None, content_sha256)


def step_reached(config: Config) -> int:
    """Return the step that training goes on from; 0 for a new run."""
    checkpoint = None if config.run.dir is None else resume_from(config.trainer.resume, _checkpoints(config), say=str)
    return 0 if checkpoint is None else step_of(checkpoint)


def check_resumed(config: Config) -> None:
    """Raise what `resume_from` does, by the manifests alone, where training is asked to go on from what is not there.

    `trainer.resume=never` is held against checkpoints that are there.
    """
    if config.run.dir is not None:
        check_choice(config.trainer.resume, _checkpoints(config))


def check_continued(config: Config) -> None:
    """Raise ConfigError, key by key, where training would go on under settings that its checkpoints exclude.

    A run without checkpoints, or one that starts anew, is bound to nothing.
    """
    checkpoint = _continued(config)
    if checkpoint is None:
        return
    refused = _refused(_trained_under(checkpoint), config, "fixed")
    if refused:
        raise ConfigError(
            f"{checkpoint} was trained under other settings than are asked for now, and a run keeps them:\n"
            f"{told(refused)}\nLeave them out to go on (where {CONFIG} was edited, set them back), or train anew in "
            "another `run.dir`; `model.source=RUN/merged` starts from what is trained here (`bitnet-train merge RUN`)."
        )


def check_finished(config: Config, root: Path) -> None:
    """Raise ConfigError, key by key, where a verb that trains nothing is given settings that the run contradicts."""
    recorded = _recorded(root)
    refused = _refused(recorded, config, "fixed", "trained") if recorded else {}
    refused |= _refused(_newest_settings(root), config, "fixed")
    refused = {name: change for name, change in refused.items() if name not in ASKED_ANEW}
    if refused:
        raise ConfigError(
            f"{root} was trained under other settings than are asked for now:\n{told(refused)}\n"
            f"This verb trains nothing, so they cannot be changed here. Leave them out (where {CONFIG} was edited, set "
            f"them back), or train under them in another `run.dir`.{_other_text(refused)}"
        )


def _other_text(refused: Mapping[str, Change]) -> str:
    if not any(name.startswith("data.") for name in refused):
        return ""
    return " Other text is measured by `bitnet-train evaluate RUN evaluate.texts=[FILE]`, in `evaluate.window_tokens`."


def record(config_yaml: str, root: Path) -> dict[str, Change]:
    """Write what a run is told now into its config.yaml and return what differs from before, by dotted key.

    `config_yaml` is the configuration as it was asked for. Where the run lies and how it was called stay as recorded.
    What was edited in the file is told by the newest checkpoint, which knows how it was trained; a file that is not
    whole is written anew.
    """
    path, asked = root / CONFIG, yaml.safe_load(config_yaml)
    is_as_written, before = _as_written(path)
    known = flatten(before) if is_as_written else flatten(before) | _newest_settings(root)
    changed = changes(known, flatten(asked), "fixed", "trained", "verbs")
    if (changed or not is_as_written) and rank() == 0:
        _keep_call(before, asked)
        write_saved(path, yaml.safe_dump(asked, sort_keys=False, allow_unicode=True, width=10**6))
    return changed


def _as_written(path: Path) -> tuple[bool, Settings]:
    """Return whether a run's config.yaml is as the run wrote it, and what it says; nothing where it is not whole."""
    try:
        content = as_it_ran(read_saved(path))
    except ConfigError:
        return False, {}
    return not is_edited(path.read_text(encoding="utf-8")), content


def _keep_call(before: Settings, asked: Settings) -> None:
    for name in CALL:
        section, _, key = name.partition(".")
        if not key and section in before:
            asked[section] = before[section]
        elif key and key in before.get(section, {}):
            asked[section][key] = before[section][key]


def _continued(config: Config) -> Path | None:
    """Return a checkpoint that training would go on from, or one of its run: they agree in what is fixed."""
    if config.run.dir is None or config.trainer.resume == "never":
        return None
    return check_choice(config.trainer.resume, _checkpoints(config))


def _checkpoints(config: Config) -> Path:
    return Path(str(config.run.dir)) / CHECKPOINTS


def _trained_under(checkpoint: Path) -> Settings:
    """Return what a checkpoint was trained under; one of before they kept it is asked through its run's record."""
    return _kept_settings(checkpoint) or _recorded(checkpoint.parent.parent)


def _newest_settings(root: Path) -> Settings:
    """Return what the newest checkpoint was trained under; a verb that needs none of them says itself what it needs."""
    try:
        newest = find_readable(root / CHECKPOINTS)
    except TrainingError:
        return {}
    return {} if newest is None else _kept_settings(newest)


def _kept_settings(checkpoint: Path) -> Settings:
    return dict(read_manifest(checkpoint).get("settings") or {})


def _recorded(root: Path) -> Settings:
    """Return what config.yaml holds, in the keys and words of today, by dotted key."""
    return flatten(as_it_ran(read_saved(root / CONFIG))) if (root / CONFIG).is_file() else {}


def _asked(config: Config) -> Settings:
    """Return the configuration as config.yaml would hold it, by dotted key."""
    return flatten(yaml.safe_load(to_yaml(config)))


def _refused(before: Mapping[str, Any], config: Config, *kinds: Any) -> dict[str, Change]:
    found = changes(before, _asked(config), *kinds)
    return {name: change for name, change in found.items() if not has_moved(name, change)}
