"""A run that is started from the page: `bitnet-train run` as a process group of its own, its curve followed live.

One at a time. Cancelling interrupts it as Ctrl-C does, so that it saves what it has; one that does not end within a
minute is killed. What it writes lies below the playground's folder, whatever the page asks.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bitnet_train.errors import BitnetTrainError
from bitnet_train.serve.playground.clean import Names
from bitnet_train.serve.playground.house import House
from bitnet_train.serve.playground.jobs import Job
from bitnet_train.serve.playground.recipes import Recipes
from bitnet_train.serve.playground.refusal import Refused
from bitnet_train.serve.playground.runs import METRICS, points_of, run_id

LOOK_EVERY_S = 0.5
GRACE_S = 60.0
_INTERRUPTED = 130
_MOST_LINE = 1000
_CLOSED = ("run.", "logger", "path", "quiet", "dry_run", "model.source", "serve.", "chat.", "playground.", "recipe")


class RunJobs:
    """The queue of runs."""

    def __init__(self, folder: Path, recipes: Recipes, house: House, names: Names) -> None:
        self._folder, self._recipes, self._house, self._names = folder, recipes, house, names
        self._waiting: asyncio.Queue[Job] = asyncio.Queue()
        self._working: Job | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    def check(self, recipe: str, words: Sequence[str]) -> None:
        """Raise Refused for a recipe that is not there, or words that are wrong or reach out of the folder."""
        word = self._recipes.word(recipe)
        for each in words:
            self._check_word(each)
        try:
            self._house.check(word, words)
        except BitnetTrainError as error:
            raise Refused(400, self._names.clean(str(error)), "overrides", "invalid_value") from None

    def take(self, job: Job) -> None:
        """Have a run done after those before it."""
        self._waiting.put_nowait(job)
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    def cancel(self, job: Job) -> None:
        """Interrupt a run, or have it not begin."""
        job.is_unwanted = True
        if job is not self._working:
            job.cancelled()
        elif self._process is not None:
            self._signal(signal.SIGINT)
            asyncio.get_running_loop().call_later(GRACE_S, self._kill, self._process)

    async def close(self) -> None:
        """Interrupt what works, wait until it has saved, and begin no other."""
        if self._task is not None and self._process is not None:
            self._signal(signal.SIGINT)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), GRACE_S)
            self._kill(self._process)
        if self._task is not None:
            self._task.cancel()

    def _check_word(self, word: str) -> None:
        name, equals, value = word.partition("=")
        if not equals or name.startswith(("+", "~")):
            raise Refused(400, f"`{word[:100]}` is no `key=value`.", "overrides", "invalid_value")
        known = [key for key in self._house.path_keys() if key == name or key.endswith(f".{name}")]
        if known or name.startswith(_CLOSED) or name in ("dir", "root", "source"):
            raise Refused(
                400, f"`{name[:100]}` is set by the playground alone: a run writes in its own folder.", "overrides"
            )
        if "custom" in name or "/" in value or "\\" in value or "${" in value:
            raise Refused(400, f"`{word[:100]}` names a place or an object, which the page may not.", "overrides")

    async def _work(self) -> None:
        while True:
            job = await self._waiting.get()
            if job.is_unwanted:
                continue
            self._working = job
            job.begin()
            try:
                await self._run(job)
            except Exception as error:
                job.fail(self._names.clean(f"{type(error).__name__}: {error}"))
            finally:
                self._working = self._process = None

    async def _run(self, job: Job) -> None:
        recipe, words = str(job.asked["recipe"]), list(job.asked["overrides"])
        place = self._folder / recipe.replace("/", "_") / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{job.id[:4]}"
        self._names.know(place, recipe)
        command = [
            *(sys.executable, "-P", "-m", "bitnet_train", "run", self._recipes.word(recipe), *words),
            "logger=none",
            f"run.dir={place}",
        ]
        self._process = process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        if job.is_unwanted:  # it was cancelled while it was started
            self.cancel(job)
        last: deque[str] = deque(maxlen=5)
        following = asyncio.create_task(self._follow(job, place))
        try:
            await self._read(job, process, last)
            code = await process.wait()
        finally:
            following.cancel()
            self._kill(process)
        self._tell_points(job, place)
        self._end(job, place, code, last)

    def _end(self, job: Job, place: Path, code: int, last: deque[str]) -> None:
        if code == 0:
            job.finish({"run": run_id(place)})
        elif job.is_unwanted or code == _INTERRUPTED:
            job.cancelled()
        else:
            said = " ".join(last)[-_MOST_LINE:] or f"exit code {code}"
            job.fail(f"The run ended with status {code}. {said}")

    async def _read(self, job: Job, process: asyncio.subprocess.Process, last: deque[str]) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than any line for people
                continue
            if not line:
                return
            text = self._names.clean(line.decode("utf-8", "replace").rstrip()[:_MOST_LINE])
            if text:
                last.append(text)
                job.say("log", {"text": text})

    async def _follow(self, job: Job, place: Path) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._tell_points(job, place)

    def _tell_points(self, job: Job, place: Path) -> None:
        """Tell what the run has logged since it was last looked at."""
        seen = int((job.progress or {}).get("bytes", 0))
        with suppress(OSError), (place / METRICS).open("rb") as file:
            file.seek(seen)
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            points = list(points_of(whole.decode("utf-8", "replace")))
            for point in points:
                job.say("point", point)
            if points:
                done = max(point["step"] for point in points)
                job.say(
                    "progress",
                    {"done": done, "total": self._total(place), "label": "steps", "bytes": seen + len(whole)},
                )

    def _total(self, place: Path) -> int | None:
        try:
            return self._house.saved_config(place / "config.yaml").get("trainer.max_steps")
        except BitnetTrainError:
            return None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _kill(self, process: asyncio.subprocess.Process) -> None:
        """End the group: the run, and what it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
