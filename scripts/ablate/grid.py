"""A grid of named levers over a recipe, and the trials it asks for.

    recipe: quickstart          what every trial starts from
    tokens: 100000              tokens of a trial, those of `blockwise` included
    common: [words]             words of every trial, baselines too: the same data, rows and precision for all
    base: [words]               what makes the recipe plain
    best: [levers]              levers that together are the best known so far
    levers:
      NAME: {what: one line, over: [words], needs: LEVER, alone: true where it cannot be had with the best}
    baselines:
      NAME: {what: one line, recipe: baselines/NAME, over: [words], times: tokens of this trial / those of the grid}

A word is what the command line of `bitnet-train` takes, `key=value` or `group=choice`; of two for one key the later
holds. A lever that needs another one names it with `needs`, and is compared with that. A lever that makes a step
smaller gets more steps: tokens are what all trials have in common.

    trial               words                                        question
    base                common + base                                what the plain start gives
    base + LEVER        common + base + lever                        what a lever buys alone
    best                common + base + best                         what they give together
    best + LEVER        common + base + best + lever                 what another lever adds, or does in place of one
    best - LEVER        common + base + best without it              what a lever is worth among the others
    baselines/NAME      common + over, on the baseline's recipe      what others do, at equal tokens, or in equal time
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Lever:
    """One choice of the method: a line for people, and the words that switch it on."""

    name: str
    what: str
    over: tuple[str, ...]
    needs: str | None = None
    alone: bool = False


@dataclass(frozen=True)
class Trial:
    """One training run of the grid, but for its seed. `against` names the trial that it is compared with."""

    name: str
    kind: str
    what: str
    recipe: str
    words: tuple[str, ...]
    tokens: int
    lever: str | None = None
    against: str | None = None


@dataclass(frozen=True)
class Grid:
    """A grid file, read and checked."""

    name: str
    recipe: str
    tokens: int
    common: tuple[str, ...] = ()
    base: tuple[str, ...] = ()
    best: tuple[str, ...] = ()
    levers: dict[str, Lever] = field(default_factory=dict)
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)

    def trials(self, tokens: int | None = None) -> Iterator[Trial]:
        """Yield every trial of the table above; `tokens` replaces the grid's own number."""
        tokens = tokens or self.tokens
        if self.levers or self.base:
            yield self._trial("base", "base", "the plain start", [], tokens)
        for lever in self.levers.values():
            needed = self._needed(lever, [])
            against = f"base + {lever.needs}" if needed else "base"
            yield self._trial(
                f"base + {lever.name}", "alone", lever.what, [*needed, lever], tokens, lever.name, against
            )
        yield from self._around_best(tokens)
        for name, baseline in self.baselines.items():
            words = (*self.common, *baseline.get("over", ()))
            recipe, what = baseline["recipe"], baseline["what"]
            yield Trial(
                f"baselines/{name}",
                "baseline",
                what,
                recipe,
                words,
                round(tokens * baseline.get("times", 1)),
                name,
                "best" if self.best else "base",
            )

    def _around_best(self, tokens: int) -> Iterator[Trial]:
        best = [self.levers[name] for name in self.best]
        if not best:
            return
        yield self._trial("best", "best", ", ".join(self.best), best, tokens, against="base")
        for lever in self.levers.values():
            if lever.alone:
                continue
            if lever in best:
                rest = [other for other in best if other is not lever]
                yield self._trial(f"best - {lever.name}", "left out", lever.what, rest, tokens, lever.name, "best")
                continue
            needed = self._needed(lever, best)
            against = f"best + {lever.needs}" if needed else "best"
            used = [*best, *needed, lever]
            yield self._trial(f"best + {lever.name}", "added", lever.what, used, tokens, lever.name, against)

    def _needed(self, lever: Lever, used: Sequence[Lever]) -> list[Lever]:
        """The lever that `lever` names with `needs`, unless it is used already."""
        return [self.levers[lever.needs]] if lever.needs and self.levers[lever.needs] not in used else []

    def _trial(
        self,
        name: str,
        kind: str,
        what: str,
        used: Sequence[Lever],
        tokens: int,
        lever: str | None = None,
        against: str | None = None,
    ) -> Trial:
        words = (*self.common, *self.base, *(word for one in used for word in one.over))
        return Trial(name, kind, what, self.recipe, words, tokens, lever, against)


def read_grid(path: Path) -> Grid:
    """Read a grid file. Raises SystemExit, in words, for one that cannot be used."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = {"recipe", "tokens", "common", "base", "best", "levers", "baselines"}
    if unknown := sorted(set(content) - known):
        raise SystemExit(f"{path}: unknown keys {unknown}. Allowed: {', '.join(sorted(known))}.")
    levers = {name: _lever(name, given) for name, given in (content.get("levers") or {}).items()}
    best = tuple(content.get("best") or ())
    if missing := [name for name in best if name not in levers]:
        raise SystemExit(f"{path}: `best` names {missing}, which `levers` lacks. Levers: {', '.join(levers)}.")
    words = {key: tuple(content.get(key) or ()) for key in ("common", "base")}
    if lost := [lever.name for lever in levers.values() if lever.needs and lever.needs not in levers]:
        raise SystemExit(f"{path}: {lost} need a lever that `levers` lacks. Levers: {', '.join(levers)}.")
    baselines = content.get("baselines") or {}
    return Grid(path.stem, content["recipe"], content["tokens"], best=best, levers=levers, baselines=baselines, **words)


def _lever(name: str, given: dict[str, Any]) -> Lever:
    allowed = {"what", "over", "needs", "alone"}
    if unknown := sorted(set(given) - allowed):
        raise SystemExit(f"lever `{name}` has unknown keys {unknown}. Allowed: {', '.join(sorted(allowed))}.")
    return Lever(name, given["what"], tuple(given["over"]), given.get("needs"), given.get("alone", False))
