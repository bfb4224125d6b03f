"""`bitnet-train sweep`: short trainings over ranges of keys, each a run of its own, and the best as a recipe.

The same call goes on with its folder, after whatever ended it, and beside others that work on it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_train.columns import fold_command, fold_named
from bitnet_train.config.compose import to_dict
from bitnet_train.config.recipe_words import check_same, recipe_text
from bitnet_train.config.schema import Config
from bitnet_train.errors import ConfigError, TrainingError
from bitnet_train.progress import be_quiet, open_console, track, warn
from bitnet_train.report.html import render_html
from bitnet_train.run.lock import owner_of
from bitnet_train.run.private import private_where_secret
from bitnet_train.run.sweep_asked import Asked, composed_trial, no_better_than_fixed, read_asked, run_of, settled
from bitnet_train.sweep.ranges import Value, grid
from bitnet_train.sweep.results import BEST, PAGE, Row, best_of, document, render_rows, rows_of
from bitnet_train.sweep.study import SharedStudy, most_trials, require_optuna
from bitnet_train.sweep.trial import STOPPED, TRAINED, Trial
from bitnet_train.verbs import Call
from bitnet_train.whole import write_whole

if TYPE_CHECKING:
    import optuna

_WAIT_S = 0.5
_MOST_LISTED = 20  # points of a grid


def sweep(call: Call) -> dict[str, Any]:
    """Work on the trials of a sweep until it has all it may have, and say what came of them."""
    be_quiet(call.quiet)
    asked = read_asked(call.words[0] if call.words else None, call.overrides)
    most = most_trials(asked.ranges, asked.settings)
    if call.dry_run:
        return _listed(asked, most, call)
    require_optuna()
    with private_where_secret(to_dict(asked.config)):
        asked, folder = settled(asked)
        study = SharedStudy(folder, asked.ranges, asked.settings)
        return _Worker(call, asked, folder, study).work()


class _Worker:
    """One process that works on a sweep, a trial at a time."""

    def __init__(self, call: Call, asked: Asked, folder: Path, study: SharedStudy) -> None:
        self._asked, self._folder, self._study = asked, folder, study
        self._console = open_console(call.quiet)

    def work(self) -> dict[str, Any]:
        """Take trials until there is none left, and return what the sweep came to."""
        self._say(f"Sweep: {self._folder}, {self._study.most} trials, `sweep.sampler={self._asked.settings.sampler}`.")
        for note in no_better_than_fixed(self._asked):
            self._say(f"note: {note}")
        failures = 0
        while (taken := self._next()) is not None:
            error = self._try(taken)
            failures = failures + 1 if error else 0
            self._write(rows_of(self._study.trials()))
            if failures >= self._asked.settings.most_failures:
                raise TrainingError(
                    f"{failures} trials in a row failed (`sweep.most_failures`), the last with: {error} What they "
                    f"printed is in {self._folder}/trial-*.log. The same call goes on with the next trial."
                )
        return self._told()

    def _next(self) -> optuna.trial.Trial | None:
        """Take a trial; while a worker of another machine may be lost, wait for what becomes of its own."""
        said = False
        while (taken := self._study.take()) is None and self._study.is_in_doubt():
            if not said:
                self._say("A worker of another machine is silent; waiting whether it is lost.")
                said = True
            time.sleep(_WAIT_S)
        return taken

    def _try(self, taken: optuna.trial.Trial) -> str:
        """Work on a trial until it has ended, and return why it failed; empty where it did not."""
        values: Mapping[str, Value] = taken.params
        run = run_of(self._folder, taken.number)
        shown = " ".join(self._asked.trial_words(values)[len(self._asked.words) :])
        self._say(f"{run.name} of {self._study.most}: {shown}")
        try:
            config = composed_trial(self._asked.recipe, self._asked.trial_words(values)).config
        except ConfigError as error:  # keys that go together at their ends and not in between
            return self._failed(taken, str(error))
        trial = Trial(
            self._asked.command(values, run),
            run,
            run.with_name(f"{run.name}.log"),
            lambda step, figure: self._watch(taken, step, figure),
            lambda: self._study.beat(taken),
        )
        return self._end(taken, trial, config)

    def _end(self, taken: optuna.trial.Trial, trial: Trial, config: Config) -> str:
        self._wait_for(trial.run)
        for _ in trial.look():  # of a trial that was taken up
            pass
        if not trial.is_pruned and not (trial.run / TRAINED).is_file():
            for _ in track(trial.go(), trial.run.name, _steps(config)):
                pass
            if not trial.is_pruned and trial.code in STOPPED:
                _stopped(trial)
            if not trial.is_pruned and trial.code != 0:
                return self._failed(taken, trial.last_line() or f"its process ended with status {trial.code}.")
        figure = trial.followed.figure(keep_best=config.trainer.keep_best)
        if figure is None and not trial.is_pruned:
            return self._failed(taken, "it measured no held-out text.")
        if not trial.is_pruned and not trial.is_measured():
            return self._failed(taken, "it was interrupted between its last step and the measuring of it.")
        self._study.tell(taken, figure, is_pruned=trial.is_pruned)
        said = "" if figure is None else f", {figure:.4f} nats a held-out token"
        self._say(f"{trial.run.name} {'pruned' if trial.is_pruned else 'trained'}{said}")
        return ""

    def _failed(self, taken: optuna.trial.Trial, error: str) -> str:
        self._study.tell(taken, None, error=error)
        self._say(f"{run_of(self._folder, taken.number).name} failed: {error}")
        return error

    def _watch(self, taken: optuna.trial.Trial, step: int, figure: float) -> bool:
        """Tell the study of a figure once, and ask whether the trial is worth going on with."""
        known = self._study.study.get_trials(deepcopy=False)[taken.number].intermediate_values
        if step not in known:
            taken.report(figure, step)
        return taken.should_prune()

    def _wait_for(self, run: Path) -> None:
        """Wait for a process that a worker left in the run directory: it was asked to stop, and saves."""
        said = False
        while (owner := owner_of(run)) is not None and owner.process.lives:
            if not said:
                self._say(f"{run.name}: process {owner.process.pid} of an earlier worker still saves; waiting for it.")
                said = True
            time.sleep(_WAIT_S)

    def _write(self, rows: Sequence[Row]) -> None:
        """Write the page, and the best as a recipe."""
        asked = self._asked
        page = document(rows, asked.keys, asked.config.recipe, self._folder, self._study.most)
        write_whole(self._folder / PAGE, render_html(page))
        best = best_of(rows)
        if best is None:
            return
        words = asked.trial_words(best.values)
        shown = " ".join(words[len(asked.words) :])
        comment = (
            f"The best of {sum(row.nats is not None for row in rows)} trials of a sweep over {asked.config.recipe}, "
            f"{best.name}: {shown}. Held-out perplexity {best.perplexity:.4g}."
        )
        write_whole(self._folder / BEST, recipe_text(asked.composed.target.content, words, comment))
        try:
            check_same(str(self._folder / BEST), asked.recipe, words)
        except ConfigError as error:  # no reason to stop
            warn(str(error))

    def _told(self) -> dict[str, Any]:
        rows = rows_of(self._study.trials())
        self._write(rows)
        best, working = best_of(rows), sum(row.state == "running" for row in rows)
        self._console.print(render_rows(rows, self._asked.keys))
        if working:
            self._say(f"{working} trials are still worked on by other workers; the last of them writes the page anew.")
        self._say(f"Page: {self._folder / PAGE}")
        if best is not None:
            self._say(f"Next: bitnet-train run {self._folder / BEST}")
        return {
            "sweep": str(self._folder),
            "passed": best is not None or working > 0,
            "best": None if best is None else best.to_dict() | {"recipe": str(self._folder / BEST)},
            "trials": [row.to_dict() for row in rows],
        }

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _stopped(trial: Trial) -> None:
    """End as the trial was ended: by somebody, who will want the sweep to end too."""
    name = signal.Signals((trial.code or 0) - 128).name
    raise TrainingError(
        f"{trial.run.name} was ended by {name}, which the sweep has not sent. It is as it was left, and the same call "
        "goes on with it."
    )


def _steps(config: Config) -> int | None:
    """Return how many lines a trial logs, where that is known beforehand."""
    trainer = config.trainer
    others = (trainer.max_tokens, trainer.max_epochs, trainer.max_minutes)
    return trainer.max_steps if others == (None, None, None) and trainer.log_every_steps == 1 else None


def _listed(asked: Asked, most: int, call: Call) -> dict[str, Any]:
    """Show what would be tried."""
    points = list(grid(asked.ranges)) if asked.settings.sampler == "grid" else []
    first: Mapping[str, Value] = {each.key: each.ends[0] for each in asked.ranges}
    command = ["bitnet-train", "train", *asked.command(first, Path("SWEEP") / "trial-0000")]
    if not call.quiet:
        print(f"{most} trials, `sweep.sampler={asked.settings.sampler}`, `sweep.pruner={asked.settings.pruner}`:")
        print(fold_named((each.key, each.described()) for each in asked.ranges))
        for point in points[:_MOST_LISTED]:
            print("  " + " ".join(f"{key}={value}" for key, value in point.items()))
        if len(points) > _MOST_LISTED:
            print(f"  and {len(points) - _MOST_LISTED} more")
        print(f"Each is a run such as\n{fold_command(' '.join(command))}")
    ranges = {each.key: each.described() for each in asked.ranges}
    return {"trials": most, "ranges": ranges, "points": points, "command": command, "dry_run": True}
