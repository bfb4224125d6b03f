"""What a sweep is asked: the words of every trial, the ranges, how it chooses; checked before the first, and kept.

SWEEP/sweep.json      what the first call asked; a later one must ask the same, and may raise `sweep.trials`
SWEEP/NAME.yaml       the recipe, where it is a file of its own: what it says later changes no trial
SWEEP/journal.log     Optuna's (`sweep.study`)
SWEEP/trial-0003/     a run directory each; beside it `trial-0003.log`, what its process printed
SWEEP/sweep.html      table and curves, written anew after each trial
SWEEP/best.yaml       the best as a recipe
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bitnet_train.config.check import value_of
from bitnet_train.config.compose import Composed, compose
from bitnet_train.config.continued import class_of
from bitnet_train.config.idle import own_recipe, refuse_idle_keys
from bitnet_train.config.inputs import refuse_missing_inputs
from bitnet_train.config.layout import groups
from bitnet_train.config.schema import Config
from bitnet_train.config.suggest import known_keys
from bitnet_train.config.target import find_target
from bitnet_train.config.words import full_key
from bitnet_train.disk import writing
from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.json_text import parse_json
from bitnet_train.process import one_at_a_time
from bitnet_train.progress import track
from bitnet_train.sweep.ranges import Range, Value, is_range, read_range
from bitnet_train.sweep.results import trial_name
from bitnet_train.sweep.settings import SweepConfig
from bitnet_train.whole import write_whole
from bitnet_train.word_as_path import is_file, path_of

ASKED = "sweep.json"
EXAMPLE = "sweep quickstart optimizer.lr=1e-4..1e-2 trainer.validate_every_steps=20"
_GROUP = "group"
_OF_A_TRIAL = ("run.dir", "run.name", "trainer.resume")  # which the sweep sets for each
_FREE = ("sweep.dir", "sweep.trials", "sweep.most_failures")  # of a sweep that goes on
_LIST = "`bitnet-train show --keys` lists all keys."


@dataclass(frozen=True)
class Asked:
    """See above. `composed` has every range at its first end; `call` are all words of the call but `sweep.dir`."""

    recipe: str | None
    words: tuple[str, ...]
    ranges: tuple[Range, ...]
    call: tuple[str, ...]
    composed: Composed

    @property
    def config(self) -> Config:
        """The configuration that all trials share, but for the ranges."""
        return self.composed.config

    @property
    def settings(self) -> SweepConfig:
        """How it chooses, and how many."""
        return self.config.sweep

    @property
    def keys(self) -> list[str]:
        """The keys that are tried, in the order they were named."""
        return [each.key for each in self.ranges]

    def trial_words(self, values: Mapping[str, Value]) -> list[str]:
        """Return the words of a trial, without those on where it lies."""
        return [*self.words, *(each.word(values[each.key]) for each in self.ranges if each.key in values)]

    def command(self, values: Mapping[str, Value], run: Path) -> list[str]:
        """Return the words behind `bitnet-train train` of a trial."""
        recipe = [] if self.recipe is None else [self.recipe]
        return [*recipe, *self.trial_words(values), f"run.dir={run}", "trainer.resume=auto"]


def read_asked(word: str | None, overrides: Sequence[str]) -> Asked:
    """Read and check what is asked; a word that is a sweep's folder stands for what that was asked.

    Raises ConfigError for a key that does not exist, an end that does not compose, a range that changes no trial, and
    a recipe without a held-out figure.
    """
    if word is not None and is_file(path_of(word) / ASKED):
        saved = _saved(path_of(word))
        anew = {name for name in map(_full, overrides) if name in _FREE}
        kept = [text for text in saved["call"] if _full(text) not in anew]
        return read_asked(saved["recipe"], [*kept, *overrides, f"sweep.dir={path_of(word)}"])
    find_target(word)  # that it names nothing is said first
    named = [(_full(text), text) for text in overrides]
    ranges = [_range(name, text) for name, text in named if _asks_for_several(name, text)]
    fixed = [(name, text) for name, text in named if not _asks_for_several(name, text)]
    _check_names([name for name, _ in fixed], ranges)
    words = tuple(text for _, text in fixed)
    composed = _check_ends(word, words, ranges)
    return Asked(
        word,
        tuple(text for name, text in fixed if not name.startswith("sweep.")),
        tuple(ranges),
        tuple(text for name, text in named if name != "sweep.dir"),
        composed,
    )


def composed_trial(recipe: str | None, words: Sequence[str]) -> Composed:
    """Compose a trial as its process will. Raises ConfigError as that would."""
    composed = compose(recipe, words)
    if composed.target.kind not in ("none", "recipe"):
        raise ConfigError(
            f"`bitnet-train sweep` works on a recipe, or goes on with the folder of a sweep (it has a `{ASKED}`); "
            f"`{recipe}` names a {composed.target.kind}. Example: `bitnet-train {EXAMPLE}`."
        )
    refuse_missing_inputs(composed.config, composed.origins)
    refuse_idle_keys(composed.config, composed.origins, composed.target)
    return composed


def settled(asked: Asked) -> tuple[Asked, Path]:
    """Return the folder of a sweep, made where there is none, and what is asked, with the recipe as it lies there.

    Raises ConfigError where the folder is that of another sweep, or of something else; DiskError.
    """
    folder = _folder(asked)
    own = own_recipe(asked.composed.target)
    copy = None if own is None or asked.recipe is None else folder / f"{path_of(asked.recipe).stem}.yaml"
    with writing(folder), one_at_a_time(folder):
        is_new = not (folder / ASKED).is_file()
        if is_new and any(folder.iterdir()):
            raise ConfigError(f"`sweep.dir={folder}` is no sweep, and not empty. Name another folder.")
        if copy is not None and asked.recipe is not None:
            _keep_recipe(path_of(asked.recipe), copy)
        recipe = asked.recipe if copy is None else str(copy)
        asked = Asked(recipe, asked.words, asked.ranges, asked.call, asked.composed)
        if is_new:
            write_whole(folder / ASKED, json.dumps(_to_keep(asked), indent=2, ensure_ascii=False) + "\n")
    _check_same(folder, asked)
    return asked, folder


def run_of(folder: Path, number: int) -> Path:
    """Return the run directory of a trial."""
    return folder / trial_name(number)


def _full(text: str) -> str:
    name = text.partition("=")[0]
    return name if name in groups() or name.startswith(("+", "~", "hydra")) else full_key(name, text)


def _kind(name: str) -> str:
    key = known_keys().get(name)
    return _GROUP if name in groups() else "" if key is None else str(key.type)


def _asks_for_several(name: str, text: str) -> bool:
    kind = _kind(name)
    return bool(kind) and not name.startswith("sweep.") and is_range(kind, text.partition("=")[2])


def _range(name: str, text: str) -> Range:
    kind = class_of(name)
    if name in _OF_A_TRIAL or kind not in ("fixed", "trained"):
        raise ConfigError(
            f"`{text}`: several values of `{name}` would be the same training each time. A sweep tries what changes "
            f"that. A value that has a comma in it is quoted: `{name}='a, b'`. {_LIST}"
        )
    return read_range(name, _kind(name), text.partition("=")[2])


def _check_names(fixed: Sequence[str], ranges: Sequence[Range]) -> None:
    if not ranges:
        raise ConfigError(
            "There is nothing to try: no word gives several values. Write `optimizer.lr=1e-4..1e-2` for all between, "
            "or `weight.planes=1,2,3`. `bitnet-train train` trains once."
        )
    names = [*fixed, *(each.key for each in ranges)]
    for each in ranges:
        if names.count(each.key) > 1:
            raise ConfigError(f"`{each.key}` is given twice, once as `{each.text}`. Drop one.")
    if taken := next((name for name in fixed if name in _OF_A_TRIAL), None):
        raise ConfigError(
            f"`{taken}` is set by the sweep for each trial. `sweep.dir` says where all of them lie, and the same call "
            "with the same `sweep.dir` goes on."
        )


def _check_ends(recipe: str | None, words: Sequence[str], ranges: Sequence[Range]) -> Composed:
    """Compose every end of every range, the others at their first."""
    first = [each.word(each.ends[0]) for each in ranges]
    base = composed_trial(recipe, [*words, *first])
    _check_measures(base.config)
    ends = [(at, end) for at, each in enumerate(ranges) for end in each.ends[1:]]
    for at, end in track(ends, "checking the ends of the ranges", len(ends)):
        composed_trial(recipe, [*words, *first[:at], ranges[at].word(end), *first[at + 1 :]])
    return base


def _check_measures(config: Config) -> None:
    if config.trainer.validate_every_steps == 0:
        raise ConfigError(
            "`trainer.validate_every_steps=0`: trials are told apart by their held-out figure, and none is measured. "
            "Add `trainer.validate_every_steps=100`; after the last step it is measured anyway."
        )
    data = config.data
    if data.source == "files" and data.validation_fraction == 0 and data.validation_path is None and not data.mix:
        raise ConfigError(
            "`data.validation_fraction=0`: trials are told apart by held-out text, and there is none. Set it above 0, "
            "or name a file with `data.validation_path`."
        )


def _folder(asked: Asked) -> Path:
    given, root = asked.settings.dir, Path(asked.config.run.root)
    if given is not None:
        with writing(Path(given)):
            Path(given).mkdir(parents=True, exist_ok=True)
        return Path(given)
    name = f"sweep_{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    place = root / asked.config.recipe / name
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        for at in count(2):
            try:
                place.mkdir()
                break
            except FileExistsError:
                place = place.with_name(f"{name}-{at}")
    return place


def _keep_recipe(given: Path, copy: Path) -> None:
    if given.resolve() == copy.resolve():
        return
    text = given.read_text(encoding="utf-8")
    if copy.is_file() and copy.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{given} is not what this sweep began with ({copy}). Begin another: another `sweep.dir`.")
    write_whole(copy, text)


def _to_keep(asked: Asked) -> dict[str, Any]:
    settings = asked.settings
    return {
        "recipe": asked.recipe,
        "call": list(asked.call),
        "words": list(asked.words),
        "ranges": {each.key: each.text for each in asked.ranges},
        **{name: getattr(settings, name) for name in ("sampler", "pruner", "seed")},
    }


def _check_same(folder: Path, asked: Asked) -> None:
    saved, now = _saved(folder), _to_keep(asked)
    for name, value in now.items():
        if name != "call" and saved.get(name) != value:
            raise ConfigError(
                f"{folder} is a sweep with {name} {_told(saved.get(name))}, and this call has {_told(value)}. "
                f"`bitnet-train sweep {folder}` goes on with it as it is; for another sweep, name another `sweep.dir`."
            )


def _told(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _saved(folder: Path) -> dict[str, Any]:
    path = folder / ASKED
    try:
        said = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(said, dict) or not {"recipe", "call"} <= said.keys():
            raise ValueError("it does not say what was asked")
        return said
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read: {error}. Bring a copy back, or begin another sweep.") from error


def no_better_than_fixed(asked: Asked) -> list[str]:
    """Return what a person should know of the ranges: figures on other held-out rows do not compare."""
    moving = [key for key in asked.keys if key.startswith(("data", "model.source"))]
    if not moving:
        return []
    value = value_of(asked.config, "data.validation_path")
    held = "" if value is None else f" of `data.validation_path={value}`"
    return [f"`{'`, `'.join(moving)}` may change the held-out rows{held}; figures of other rows do not compare."]
