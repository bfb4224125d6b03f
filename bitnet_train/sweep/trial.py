"""A trial: `bitnet-train train` in a process of its own, whose figures are followed as it writes them.

It is stopped as a person would stop it, by SIGINT: it finishes its step and saves. On Linux it is asked to stop, too,
when its worker is killed, so that no trial goes on for nobody. Of the variables of a launcher (`srun`, `torchrun`) that
started the worker it sees none: it is no process of theirs, and Lightning would wait for the others.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bitnet_train.disk import writing
from bitnet_train.json_text import parse_json
from bitnet_train.train.loop.held_out import FIGURE
from bitnet_train.train.loop.launchers import LAUNCHERS

METRICS, TRAINED = "metrics.jsonl", Path("facts") / "train.json"
LOOK_EVERY_S = 0.25
GRACE_S = 60.0
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux' prctl(2)
_MOST_LINE = 500
Point = tuple[int, float]  # step, nats a held-out token


@dataclass
class Followed:
    """The figures of a run as they come; `points` are those of its held-out text."""

    run: Path
    points: list[Point] = field(default_factory=list)
    _read_bytes: int = 0

    def new(self) -> Iterator[tuple[int, float | None]]:
        """Yield each whole line since the last look: its step, and the held-out figure where it has one."""
        with suppress(FileNotFoundError), (self.run / METRICS).open("rb") as file:
            file.seek(self._read_bytes)
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._read_bytes += len(whole)
            yield from self._lines(whole.decode("utf-8", "replace"))

    def _lines(self, text: str) -> Iterator[tuple[int, float | None]]:
        for line in text.splitlines():
            with suppress(ValueError):
                row = parse_json(line)
                if not isinstance(row, dict) or type(row.get("step")) is not int:
                    continue
                figure = row.get(FIGURE)
                if isinstance(figure, int | float):
                    self.points = [point for point in self.points if point[0] != row["step"]]  # once more, on a resume
                    self.points.append((row["step"], float(figure)))
                yield row["step"], figure if isinstance(figure, int | float) else None

    def figure(self, *, keep_best: bool) -> float | None:
        """Return what the trained model has: the last figure, or the lowest where that checkpoint is kept."""
        if not self.points:
            return None
        return min(value for _, value in self.points) if keep_best else max(self.points)[1]


@dataclass
class Trial:
    """One process, from its start to its end. `watch` is told of each held-out figure; True from it stops the trial."""

    words: Sequence[str]
    run: Path
    log: Path
    watch: Callable[[int, float], bool]
    beat: Callable[[], None] = lambda: None
    code: int | None = None
    is_pruned: bool = False

    def __post_init__(self) -> None:
        self.followed = Followed(self.run)

    def go(self) -> Iterator[int]:
        """Run it, and yield every step that it logs; when this ends, so has the process, however that came."""
        with writing(self.log), self.log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bitnet_train", "train", *self.words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,  # Ctrl-C is the worker's business
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        try:
            yield from self._follow(process)
        finally:
            self.code = stop(process)

    def look(self) -> Iterator[int]:
        """Yield the steps that were logged since the last look; stop where one of them is to be the last."""
        for step, figure in self.followed.new():
            if figure is not None and self.watch(step, figure):
                self.is_pruned = True
            yield step

    def is_measured(self) -> bool:
        """Whether the last figure is of the last step: a run that goes on after that step does not make up for it."""
        with suppress(OSError, ValueError, KeyError):
            steps = parse_json((self.run / TRAINED).read_text(encoding="utf-8"))["steps"]
            return bool(self.followed.points) and max(self.followed.points)[0] == steps
        return False

    def last_line(self) -> str:
        """Return the last line that it printed: why it ended, where that was not well."""
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            said = [line.strip() for line in lines if line.strip()]
            return said[-1][:_MOST_LINE] if said else ""
        return ""

    def _follow(self, process: subprocess.Popen[bytes]) -> Iterator[int]:
        while not self.is_pruned:
            has_ended = process.poll() is not None  # asked first: what it wrote before its end is then there
            self.beat()
            yield from self.look()
            if has_ended:
                return
            time.sleep(LOOK_EVERY_S)


def environment() -> dict[str, str]:
    """Return the variables of a trial's process: ours, without those of a launcher, and where the package lies."""
    of_launchers = {name for row in LAUNCHERS for name in (row.size, row.rank, *row.marks)}
    kept = {name: value for name, value in os.environ.items() if name not in of_launchers}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}


def stop(process: subprocess.Popen[bytes]) -> int:
    """Return the exit status of a process, which is asked to end where it has not, and ended after a minute."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # what it started, too
    return process.wait()


def _end_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)
