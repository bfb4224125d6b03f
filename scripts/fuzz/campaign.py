"""Run a target over numbered cases, and tell how they went."""

from __future__ import annotations

import random
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from scripts.fuzz.targets import TARGETS, Attempt, Outcome, Target

_TRIES = 3  # of a case that is slow: the collector of garbage, a page fault


@dataclass
class Tally:
    """How the cases of a target went; a defect is (number, what it came to)."""

    refused: int = 0
    works: int = 0
    defects: list[tuple[int, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    slowest_case: int = 0
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """All cases."""
        return self.refused + self.works + len(self.defects)


def run_target(
    name: str,
    numbers: Iterable[int],
    seed: int = 0,
    *,
    slack: float = 1.0,
    say: Callable[[Tally], object] = lambda tally: None,
) -> Tally:
    """Run the cases `numbers` of a target in a folder of its own; `slack` times as long is allowed, as for sanitizers.

    `say` is told how it stands after every case.
    """
    target, tally, start = TARGETS[name], Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as work:
        attempt = target.make(Path(work))
        for number in numbers:
            _count(tally, target, attempt, seed, number, slack)
            tally.seconds = time.monotonic() - start
            say(tally)
    return tally


def _count(tally: Tally, target: Target, attempt: Attempt, seed: int, number: int, slack: float) -> None:
    try:
        outcome, seconds = _timed(attempt, seed, number, target.slowest_s * slack)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and a panic of Rust, are defects like any other
        tally.defects.append((number, "".join(traceback.format_exception(error))))
        return
    if seconds > tally.slowest_s:
        tally.slowest_s, tally.slowest_case = seconds, number
    if seconds > target.slowest_s * slack:
        tally.defects.append((number, f"took {seconds:.2f} s of CPU; {target.slowest_s} are allowed"))
    elif outcome == "refused":
        tally.refused += 1
    else:
        tally.works += 1


def _timed(attempt: Attempt, seed: int, number: int, allowed_s: float) -> tuple[Outcome, float]:
    """Run one case, and once more when it was slow; return how it went and the least seconds of CPU."""
    least = float("inf")
    for _ in range(_TRIES):
        start = time.process_time()
        outcome = attempt(random.Random(f"{seed}-{number}"), number)
        least = min(least, time.process_time() - start)
        if least <= allowed_s:
            break
    return outcome, least
