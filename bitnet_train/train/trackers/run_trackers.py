"""All trackers of a run as one: samples, closing figures and artefacts go to each, wherever they come from.

with tracked(...) as trackers:                    run/tracked.py
    fit(..., loggers=trackers.loggers)            figures of every step
    trackers.sample(100, "def f(", "x): ...")     what the model wrote after step 100
    trackers.summarise({"verdict": "passed"})     what the run came to
    trackers.keep(Artefact(...))                  where something lies
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch.loggers import Logger

from bitnet_train.train.trackers.guarded_tracker import GuardedTracker
from bitnet_train.train.trackers.tracker import Artefact, Figure, Status


class RunTrackers:
    """The guarded trackers of one run, held open until `close`; with none of them every call does nothing."""

    def __init__(self, trackers: Sequence[GuardedTracker] = ()) -> None:
        self._trackers = tuple(trackers)
        for tracker in self._trackers:
            tracker.is_held = True

    @property
    def loggers(self) -> list[Logger]:
        """The trackers as loggers of Lightning, for `fit`."""
        return list(self._trackers)

    def sample(self, step: int, prompt: str, text: str) -> None:
        """Show what the model wrote on `prompt` after `step` finished steps."""
        for tracker in self._trackers:
            tracker.sample(step, prompt, text)

    def summarise(self, figures: Mapping[str, Figure]) -> None:
        """Show figures of the whole run, by name; a later figure of a name takes the place of an earlier one."""
        for tracker in self._trackers:
            tracker.summarise(figures)

    def keep(self, artefact: Artefact) -> None:
        """Say where something lies that the run read or wrote."""
        for tracker in self._trackers:
            tracker.keep(artefact)

    def close(self, status: Status = "success") -> None:
        """End the run in every tracker; wait some seconds for what has not arrived yet."""
        for tracker in self._trackers:
            tracker.close(status)
