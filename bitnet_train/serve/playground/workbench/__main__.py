"""The workbench process: see the package."""

from __future__ import annotations

import os
import queue
import shutil
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitnet_train.serve.child import begin, hear, say
from bitnet_train.serve.playground.workbench.look import look
from bitnet_train.serve.playground.workbench.told import told


def main() -> int:
    """Load the model of the argument and work until the parent has had enough."""
    argument = begin()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # torch's threads wait asleep: other models share the cores
    try:
        look(argument["source"])
        from bitnet_train.serve.playground.workbench.bench import Bench  # after the limits: torch needs room, and time

        bench = Bench.open(argument)
    except BaseException as error:
        traceback.print_exc()
        say({"event": "refused", "data": {"message": told(error)}})
        return 1
    say({"event": "loaded", "data": bench.opened.describe()})
    try:
        _work(bench)
    finally:
        shutil.rmtree(Path(argument["scratch"]), ignore_errors=True)
    return 0


def _work(bench: Any) -> None:
    waiting: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(bench, waiting), daemon=True).start()
    while (message := waiting.get()) is not None:
        bench.do(message)


def _listen(bench: Any, waiting: queue.SimpleQueue[Mapping[str, Any] | None]) -> None:
    """Hand questions on, and have the job that is being worked on end at once where that is asked."""
    for message in hear():
        if message["op"] == "cancel":
            bench.cancel(message["job"])
        else:
            bench.expect(message["job"])
            waiting.put(message)
    bench.cancel(None)
    waiting.put(None)


if __name__ == "__main__":
    sys.exit(main())
