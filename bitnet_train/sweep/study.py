"""Optuna's study of a sweep, in a journal file that several workers share and that outlives whoever writes in it.

    SWEEP/journal.log     every line an event: a trial began, got a value, was told a figure, ended

A trial is this worker's from the moment that it is taken. Who works on it is written down with it (`worker`): where
that process is gone, the next worker takes the trial up in the same run directory, which goes on from its last
checkpoint, or is read where it had ended already. A worker of another machine cannot be asked whether it lives; it
keeps a file fresh (`beat`), and after two minutes without is taken for lost: its trial is told as failed, and the same
values wait for whoever comes next, in a new directory, for the old one may yet be written in.

Which trial is whose is decided under a lock of the system on the folder, one worker at a time. A line of the journal
that was cut by a crash of the machine is taken out; Optuna would refuse all after it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_train.disk import writing
from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.process import Process, one_at_a_time, this_process
from bitnet_train.sweep.ranges import Range, grid
from bitnet_train.sweep.settings import SweepConfig

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

JOURNAL, BEATS = "journal.log", "workers"
LOST_AFTER_S = 120.0
DOUBT_AFTER_S = 30.0
BEAT_EVERY_S = 5.0
DEFAULT_TRIALS = 20
_NAME = "sweep"
_WORKER, LOST, ERROR = "worker", "lost", "error"  # attributes of a trial


def require_optuna() -> None:
    """Raise ConfigError, with how to install it, where Optuna is not there."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"A sweep needs the package `{error.name}`. Install it: `pip install 'bitnet-train[sweep]'`."
        ) from error


class SharedStudy:
    """The study in a folder that is there; opening it makes it where there is none. Raises FormatError, DiskError."""

    def __init__(self, folder: Path, ranges: Sequence[Range], settings: SweepConfig) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._folder, self._ranges, self._settings = folder, tuple(ranges), settings
        self._beaten_s = -BEAT_EVERY_S
        self.most = most_trials(ranges, settings)
        journal = folder / JOURNAL
        with writing(folder), one_at_a_time(folder):
            _heal(journal)
            try:
                self.study = optuna.create_study(
                    storage=JournalStorage(JournalFileBackend(str(journal))),
                    study_name=_NAME,
                    load_if_exists=True,
                    sampler=_sampler(settings, 0),
                    pruner=_pruner(settings),
                )
            except ValueError as error:
                raise FormatError(
                    f"{journal} cannot be read: {error}. Bring a copy of it back, or begin another sweep."
                ) from error
            if settings.sampler == "grid":
                self._plan_grid()

    def trials(self) -> list[FrozenTrial]:
        """Return the trials that began, without those that were lost, in their order."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if _counts(trial)]

    def take(self) -> Trial | None:
        """Return a trial to work on, one that somebody left or a new one; None where the sweep has all it may have."""
        from optuna.trial import Trial, TrialState

        with writing(self._folder), one_at_a_time(self._folder):
            left = [trial for trial in self.trials() if trial.state == TrialState.RUNNING and self._is_left(trial)]
            for trial in left:
                process = _process(trial)
                if process is None or process.is_here:
                    return self._begin(Trial(self.study, trial._trial_id))
                self._lose(trial)
            if len(self.trials()) >= self.most:
                return None
            self.study.sampler = _sampler(self._settings, len(self.study.get_trials(deepcopy=False)))
            return self._begin(self.study.ask())

    def tell(self, trial: Trial, figure: float | None, *, is_pruned: bool = False, error: str = "") -> None:
        """Say how a trial ended: with a figure, pruned, or with an error."""
        from optuna.trial import TrialState

        if error:
            trial.set_user_attr(ERROR, error)
        state = TrialState.FAIL if error else TrialState.PRUNED if is_pruned else TrialState.COMPLETE
        with writing(self._folder):
            self.study.tell(trial, figure if state == TrialState.COMPLETE else None, state=state)

    def beat(self, trial: Trial) -> None:
        """Say that the worker of a trial lives; as often as it likes."""
        if time.monotonic() - self._beaten_s >= BEAT_EVERY_S:
            self._beat_file(trial.number).touch()
            self._beaten_s = time.monotonic()

    def is_in_doubt(self) -> bool:
        """Whether a worker of another machine is silent, and may be lost in a moment: then there is a trial to take."""
        from optuna.trial import TrialState

        running = (trial for trial in self.trials() if trial.state == TrialState.RUNNING)
        return any(self._silent_s(trial) > DOUBT_AFTER_S for trial in running if _is_elsewhere(trial))

    def _begin(self, trial: Trial) -> Trial:
        for each in self._ranges:
            _suggest(trial, each)
        trial.set_user_attr(_WORKER, asdict(this_process()))
        (self._folder / BEATS).mkdir(exist_ok=True)
        self._beaten_s = -BEAT_EVERY_S
        self.beat(trial)
        return trial

    def _plan_grid(self) -> None:
        """Have every point of the grid wait for a worker, once: Optuna's own sampler of grids asks two for the same."""
        for point in grid(self._ranges):
            self.study.enqueue_trial(point, skip_if_exists=True)

    def _is_left(self, trial: FrozenTrial) -> bool:
        process = _process(trial)
        if process is None or process == this_process():
            return True
        return not process.lives if process.is_here else self._silent_s(trial) > LOST_AFTER_S

    def _silent_s(self, trial: FrozenTrial) -> float:
        """Return since when nothing was heard of a worker, by the clock of the disk that both write to."""
        now, beat = self._folder / BEATS / f"now-{os.getpid()}", self._beat_file(trial.number)
        now.touch()
        try:
            return now.stat().st_mtime - beat.stat().st_mtime
        except OSError:
            return math.inf
        finally:
            now.unlink(missing_ok=True)

    def _lose(self, trial: FrozenTrial) -> None:
        from optuna.trial import TrialState

        self.study.enqueue_trial(dict(trial.params))
        self.study._storage.set_trial_user_attr(trial._trial_id, LOST, True)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _beat_file(self, number: int) -> Path:
        return self._folder / BEATS / f"{number:04d}"


def most_trials(ranges: Sequence[Range], settings: SweepConfig) -> int:
    """Return how many trials a sweep makes. Raises ConfigError where a grid has more points than it may."""
    if settings.sampler != "grid":
        return settings.trials or DEFAULT_TRIALS
    points = len(list(grid(ranges)))
    if settings.trials is not None and settings.trials < points:
        raise ConfigError(
            f"`sweep.trials={settings.trials}`, and the grid has {points} points. Leave `sweep.trials` out to try all, "
            "or name fewer values."
        )
    return points


def _suggest(trial: Trial, each: Range) -> Any:
    """Return the value of a key in a trial; one that it has already stays."""
    if each.is_named:
        return trial.suggest_categorical(each.key, list(each.choices))
    if each.points is not None:
        return trial.suggest_categorical(each.key, list(each.grid()))
    if each.is_whole:
        return trial.suggest_int(each.key, int(each.low), int(each.high), log=each.is_log)
    return trial.suggest_float(each.key, each.low, each.high, log=each.is_log)


def _sampler(settings: SweepConfig, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of a trial: the same seed gives the same trials, whoever asks and after whatever restart."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = (settings.seed + 1_000_003 * number) % 2**32
    return TPESampler(seed=seed) if settings.sampler == "tpe" else RandomSampler(seed=seed)


def _pruner(settings: SweepConfig) -> optuna.pruners.BasePruner:
    from optuna.pruners import MedianPruner, NopPruner

    return MedianPruner() if settings.pruner == "median" else NopPruner()


def _counts(trial: FrozenTrial) -> bool:
    return trial.state.name != "WAITING" and not trial.user_attrs.get(LOST, False)


def _process(trial: FrozenTrial) -> Process | None:
    """Return who works on a trial; None where a worker was ended as it took it."""
    said: Mapping[str, Any] | None = trial.user_attrs.get(_WORKER)
    return None if said is None else Process(**said)


def _is_elsewhere(trial: FrozenTrial) -> bool:
    process = _process(trial)
    return process is not None and not process.is_here


def _heal(journal: Path) -> None:
    """Take out a last line that was cut."""
    if not journal.is_file():
        return
    with journal.open("r+b") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
