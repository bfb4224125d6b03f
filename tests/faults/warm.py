"""A process that has imported all that a command imports, and forks one command line after another.

Each is a process of its own that may be killed, and starts in milliseconds: what makes a start slow are the imports of
torch, Lightning and transformers. Nothing is computed here before a fork, so no thread of torch or of our kernels is
lost by it; the copy goes on as `python -m bitnet_train` does, from the module `__main__` to the exit code. One thing is
known to every copy beforehand: how fast bf16 is on this machine, which the first copy times and tells.

Orders come as lines of JSON on stdin, answers go as lines to stdout: `start` answers with a process id, `wait` with the
exit code (negative: the signal that ended it; null: it had to be killed, its time was up), `know` with null.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import pkgutil
import runpy
import signal
import sys
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LAZY = ("lightning.pytorch", "transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto")
LAZY += ("transformers.modeling_utils", "peft", "datasets", "hydra", "torch._dynamo", "torch.distributed", "wandb")
POLL_S = 0.01
NO_FAULT = 70  # of a fault that cannot be injected
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def import_everything() -> None:
    """Import every module of the package but its `__main__`, and what these import when they are first used."""
    import bitnet_train

    for found in pkgutil.walk_packages(bitnet_train.__path__, "bitnet_train."):
        if not found.name.endswith("__main__"):
            with contextlib.suppress(ModuleNotFoundError):  # of an extra that is not installed
                import_module(found.name)
    for name in LAZY:
        import_module(name)


def remember() -> None:
    """Fill what is computed once a process and depends on nothing: parsed grammars, patterns, the tables of others."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from bitnet_train.config.compose import compose

    compose("quickstart")
    get_checkpoint_conversion_mapping("llama")


def know_the_machine() -> None:
    """Have a copy time bf16, and let every later copy know the result: it takes most of a second."""
    from bitnet_train.train.loop import machine

    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, json.dumps(machine.time_products("cpu")).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    found = json.loads(os.read(reading, 1000))
    os.close(reading)
    os.close(writing)
    machine.time_products = lambda device: tuple(found)  # type: ignore[assignment]


def start(order: dict[str, Any]) -> int:
    """Fork a command; return its process id. The copy does not return."""
    pid = os.fork()
    if pid:
        return pid
    try:
        code = _run(order)
    except BaseException:
        traceback.print_exc()
        code = NO_FAULT
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run(order: dict[str, Any]) -> int:
    """Become the command: its own group, files, environment and arguments; return the exit code."""
    os.setsid()
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, order["out"], _APPEND),
        (2, order["err"], _APPEND),
    ):
        os.dup2(os.open(path, flags, 0o600), descriptor)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from tests.faults import injected

    injected.inject(order["faults"])
    sys.argv = ["bitnet-train", *order["words"]]
    return _ended(lambda: runpy.run_module("bitnet_train", run_name="__main__", alter_sys=True))


def _ended(main: Any) -> int:
    """Return what the interpreter would exit with after `main`, its threads waited for and its handlers run."""
    code: Any = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    return code if isinstance(code, int) else 0 if code is None else 1


def wait(pid: int, seconds: float) -> int | None:
    """Return the exit code of a command; None after so many seconds, when its whole group is killed."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(POLL_S)


def know(word: str) -> None:
    """Compose a configuration once for every later copy: what Hydra makes of the same lines is kept."""
    from bitnet_train.config.compose import compose

    compose(word)


def answer(order: dict[str, Any]) -> int | None:
    """Do what an order says."""
    if order["do"] == "start":
        return start(order)
    return wait(order["pid"], order["seconds"]) if order["do"] == "wait" else know(order["word"])


def serve() -> None:
    """Answer orders until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    import_everything()
    remember()
    know_the_machine()
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers)


if __name__ == "__main__":
    sys.path.append(str(ROOT))
    serve()
