"""Keys that a verb does not read, which would have no effect: refused, with the verbs that do read them.

Which verb reads what stands in its row of the table of verbs (`verbs/__init__.py`), above this room, and is handed
down. Training verbs have nothing there: they read most keys, and record the rest for the verbs that follow. Where a run
is named, keys of training are held against the run itself (`trained_settings`), which says more.
"""

from __future__ import annotations

from collections.abc import Mapping

from bitnet_train.config.check import value_of
from bitnet_train.config.continued import ASKED_ANEW, class_of
from bitnet_train.config.schema import Config
from bitnet_train.config.suggest import known_keys
from bitnet_train.config.target import Target
from bitnet_train.config.values import COMMAND_LINE
from bitnet_train.errors import ConfigError

Reads = Mapping[str, tuple[str, ...]]
"""Verb -> the sections and keys that it reads, beside those of the run that it works on; none = a verb that trains."""
_OTHER_TEXT = "Other text is measured by `bitnet-train evaluate` with `evaluate.texts=[FILE]`."


def refuse_unread_keys(config: Config, origins: Mapping[str, str], target: Target, verb: str, reads: Reads) -> None:
    """Raise `ConfigError` for a key of the command line that this verb does not read."""
    if not reads[verb]:
        return
    for name in known_keys():
        is_given = origins.get(name) == COMMAND_LINE
        if not is_given or _is_read(name, reads[verb]) or (target.run_dir and _held_against_run(name)):
            continue
        raise ConfigError(
            f"`{name}={value_of(config, name)}` has no effect: `bitnet-train {verb}` does not read it. "
            f"{_way_out(name, reads)}"
        )


def _is_read(name: str, entries: tuple[str, ...]) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in entries)


def _held_against_run(name: str) -> bool:
    return name not in ASKED_ANEW and class_of(name) in ("fixed", "trained")


def _way_out(name: str, reads: Reads) -> str:
    readers = [verb for verb, entries in reads.items() if _is_read(name, entries)]
    verbs = ", ".join(["run", "train", *readers] if class_of(name) in ("fixed", "trained") else ["run", *readers])
    return f"It belongs to: {verbs}. {_OTHER_TEXT if name.startswith('data.') else 'Leave it out.'}"
