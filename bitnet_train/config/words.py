"""The command line's `key=value` and `group=choice` words, checked before anything is composed.

Hydra's answer to a wrong key ("append with +key") would only move the mistake, so the key is looked up
here first. A key may be shortened to its last part where only one key ends so: `max_steps=20`, `resume=auto`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bitnet_train.config.foreign import foreign_hint
from bitnet_train.config.layout import groups
from bitnet_train.config.path_words import path_values
from bitnet_train.config.suggest import did_you_mean, known_keys, nearest_key
from bitnet_train.config.values import COMMAND_LINE, read_value
from bitnet_train.errors import ConfigError

MULTIRUN = (
    "Hydra's multirun is not taken: its jobs would share one process, in which signals, threads and several devices "
    "are set up once, and a job that dies would take the others with it. `bitnet-train sweep RECIPE KEY=LOW..HIGH`, or "
    "`KEY=A,B`, tries several values, each in a process of its own."
)


@dataclass
class Words:
    """What the command line asks for: choices of groups, and values of keys."""

    choices: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)  # by full dotted key


def read_words(words: Sequence[str]) -> Words:
    """Parse and check the words; `ConfigError` names the word, and the nearest key or choice."""
    read = Words()
    for word in words:
        name, equals, text = word.partition("=")
        if name.lstrip("+~").startswith(("hydra.", "hydra/")):
            raise ConfigError(f"`{word}` ({COMMAND_LINE}): {MULTIRUN}")
        if not equals or name.startswith(("+", "~")):
            bare = word.lstrip("+~") if equals else f"{word}=VALUE"
            raise ConfigError(f"`{word}` ({COMMAND_LINE}): every word sets a key that exists. Write `{bare}`.")
        if (named := path_values(name, text)) is not None:
            read.values |= named
        elif name in groups():
            read.choices[name] = checked_choice(name, text, COMMAND_LINE)
        else:
            full = full_key(name, word)
            read.values[full] = read_value(full, word)
    return read


def checked_choice(group: str, choice: Any, origin: str) -> str:
    """Return `choice` if `configs/<group>/` has it."""
    allowed = groups()[group]
    if choice in allowed:
        return choice
    if isinstance(choice, bool):
        word = '"on"' if choice else '"off"'
        raise ConfigError(f"`{group}: {choice}` ({origin}): YAML reads a bare on or off as a truth; write {word}.")
    raise ConfigError(
        f"`{group}={choice}` ({origin}): there is no such choice.{did_you_mean(str(choice), allowed)} "
        f"Choices of `{group}`: {', '.join(allowed)}. A single key is set as `{group}.KEY=VALUE`."
    )


def full_key(name: str, word: str) -> str:
    """Return the full dotted key of `name`, which may be the last part alone where that is unique."""
    known = known_keys()
    if name in known or any(name.startswith(f"{free}.") for free in free_keys()):
        return name
    ending = [key for key in known if "." not in name and key.endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    foreign = "" if "." in name else foreign_hint(name, word.partition("=")[2])
    if ending and not foreign:
        raise ConfigError(f"`{word}` ({COMMAND_LINE}): which one, `{'` or `'.join(ending)}`?")
    raise ConfigError(
        f"`{word}` ({COMMAND_LINE}): there is no key `{name}`."
        f"{foreign or nearest_key(name) or did_you_mean(name, groups())} `bitnet-train show --keys` lists all keys."
    )


def free_keys() -> list[str]:
    """Return the keys whose values are dictionaries with keys of their own choosing."""
    return [name for name, key in known_keys().items() if str(key.type).startswith("dict")]
