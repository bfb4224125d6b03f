"""Keys that a verb does not read: THE table of what the verbs read that come after training.

Training verbs are not in it: they read most keys, and record the rest for the verbs that follow. The later ones record
nothing, so a key that such a verb does not read has no effect and is refused, with the verbs that do read it. Where a
run is named, keys of training are held against the run itself (`trained_settings`), which says more.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bitnet_train.config.check import value_of
from bitnet_train.config.continued import ASKED_ANEW, class_of
from bitnet_train.config.schema import Config
from bitnet_train.config.suggest import known_keys
from bitnet_train.config.target import Target
from bitnet_train.config.values import COMMAND_LINE
from bitnet_train.errors import ConfigError

READS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "merge": ("debug",),
        "export": ("debug", "export"),
        "validate": ("debug", "validate"),
        "evaluate": (
            *("debug", "evaluate", "generate.prompt", "generate.engine", "generate.threads"),
            *("data.context_tokens", *ASKED_ANEW),
        ),
        "generate": ("debug", "generate", *ASKED_ANEW),
        "bench": ("debug", "bench"),
    }
)
"""Verb -> the sections and keys that it reads, beside those of the run that it works on."""
_EVERY_VERB = ("run.", "trainer.num_threads")
_OTHER_TEXT = "Other text is measured by `bitnet-train evaluate` with `evaluate.texts=[FILE]`."


def refuse_unread_keys(config: Config, origins: Mapping[str, str], target: Target, verb: str) -> None:
    """Raise `ConfigError` for a key of the command line that this verb does not read."""
    if verb not in READS:
        return
    for name in known_keys():
        if origins.get(name) != COMMAND_LINE or _is_read(name, verb) or (target.run_dir and _held_against_run(name)):
            continue
        raise ConfigError(
            f"`{name}={value_of(config, name)}` has no effect: `bitnet-train {verb}` does not read it. {_way_out(name)}"
        )


def _is_read(name: str, verb: str) -> bool:
    return name.startswith(_EVERY_VERB) or any(name == own or name.startswith(f"{own}.") for own in READS[verb])


def _held_against_run(name: str) -> bool:
    return name not in ASKED_ANEW and class_of(name) in ("fixed", "trained")


def _way_out(name: str) -> str:
    readers = [verb for verb in READS if _is_read(name, verb)]
    verbs = ", ".join(["run", "train", *readers] if class_of(name) in ("fixed", "trained") else ["run", *readers])
    return f"It belongs to: {verbs}. {_OTHER_TEXT if name.startswith('data.') else 'Leave it out.'}"
