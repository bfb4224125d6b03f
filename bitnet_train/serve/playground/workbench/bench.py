"""What a workbench does: one job after another, each ending in `done`, `failed` or `cancelled`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bitnet_train.errors import ConversionError
from bitnet_train.serve.playground.workbench.bearing import bearing
from bitnet_train.serve.playground.workbench.benchmark import benchmark
from bitnet_train.serve.playground.workbench.continuation import continuation
from bitnet_train.serve.playground.workbench.measured import Measured
from bitnet_train.serve.playground.workbench.opened import Opened
from bitnet_train.serve.playground.workbench.swap import swap
from bitnet_train.serve.playground.workbench.task import Task, Unwanted, finite
from bitnet_train.serve.playground.workbench.told import told


class Bench:
    """One model, and the jobs that are expected or done for it."""

    def __init__(self, opened: Opened, scratch: Path, text_tokens: int) -> None:
        self.opened, self._scratch = opened, scratch
        self._measured = Measured(opened, text_tokens)
        self._tasks: dict[str, Task] = {}

    @classmethod
    def open(cls, argument: Mapping[str, Any]) -> Bench:
        """Load the model that the argument names. Raises what `load_pretrained` raises."""
        return cls(Opened.open(argument["source"]), Path(argument["scratch"]), int(argument["text_tokens"]))

    def expect(self, job: str) -> None:
        """Know of a job that comes, so that it can be cancelled before it begins."""
        self._tasks[job] = Task(job)

    def cancel(self, job: str | None) -> None:
        """Have a job end soon; None: all."""
        for task in list(self._tasks.values()):
            if job in (None, task.job):
                task.cancel()

    def do(self, message: Mapping[str, Any]) -> None:
        """Do a job and say how it ended."""
        task = self._tasks[message["job"]]
        try:
            task.check()
            result = self._function(message["op"])(task, message["asked"])
        except Unwanted:
            task.say("cancelled")
        except Exception as error:
            traceback.print_exc()  # into the log of this process
            task.say("failed", message=told(error))
        else:
            task.say("done", **finite(result))
        finally:
            del self._tasks[task.job]

    def _function(self, op: str) -> Callable[[Task, Mapping[str, Any]], dict[str, Any]]:
        opened, measured = self.opened, self._measured
        jobs: dict[str, Callable[[Task, Mapping[str, Any]], dict[str, Any]]] = {
            "bearing": lambda task, asked: bearing(opened, measured, task),
            "swap": lambda task, asked: swap(opened, measured, task, asked["choice"], asked.get("text")),
            "continue": lambda task, asked: continuation(opened, measured, task, asked),
            "benchmark": lambda task, asked: benchmark(opened, task, asked["choice"], self._scratch),
        }
        if op not in jobs:
            raise ConversionError(f"`kind={op}` is no job of a model.")
        return jobs[op]
