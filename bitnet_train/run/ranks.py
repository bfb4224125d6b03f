"""The processes of one run: the first decides where it lies, prepares it and writes; the others follow, and write not.

A launcher starts all of them at once. Lightning starts the others when the first begins to train, with its words and
its environment. Either way the others begin when the first is ready, so they find what it has settled (precision,
steps, rows of tokens) in the run directory, and none measures it anew. torchrun has a store that they all reach; of
another launcher's processes each has to be told `run.dir`, and they do not wait.
"""

from __future__ import annotations

import os
import time
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from bitnet_train.config.schema import Config, changed
from bitnet_train.errors import ConfigError, TrainingError
from bitnet_train.train.loop.launchers import launcher

_FIRST, _PLACE = "BITNET_TRAIN_FIRST", "BITNET_TRAIN_RUN"  # of the first process: its id, and its run directory
_HAS_STORE = "TORCHELASTIC_USE_AGENT_STORE"
_PAUSE_S = 0.2


def rank() -> int:
    """Return the number of this process among those of its run: 0 for the first, and for one alone."""
    found = launcher()
    if found is not None:
        return found.number()
    number = os.environ.get("LOCAL_RANK", "")
    return int(number) if _is_started_by_first() and number.isdecimal() else 0


def can_connect() -> bool:
    """Whether this process is one of several that were told how to reach each other: those that torchrun starts."""
    found = launcher()
    return found is not None and found.name == "torchrun"


def lead(root: Path) -> None:
    """Let the other processes, if there are any, begin: the run at `root` is prepared."""
    os.environ[_FIRST], os.environ[_PLACE] = str(os.getpid()), str(root)
    if _has_store():
        _store().set(_PLACE, str(root))


def stop_leading() -> None:
    """Forget what `lead` said: what this process starts from here on is no part of the run."""
    for name in (_FIRST, _PLACE):
        os.environ.pop(name, None)


def follow(config: Config) -> Config:
    """Return the configuration of the run that the first process leads, once that is ready; end when it does.

    Raises ConfigError where the first cannot be asked, and no `run.dir` is given.
    """
    Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()
    place = os.environ.get(_PLACE) if _is_started_by_first() else _told() if _has_store() else config.run.dir
    if place is None:
        raise ConfigError(
            "Several processes were started on one run, and each would name one of its own. Name it: `run.dir=...`."
        )
    resume = "auto" if config.trainer.resume == "never" else config.trainer.resume  # of what the first has settled
    return changed(config, {"run.dir": place, "quiet": True, "trainer.resume": resume})


def _is_started_by_first() -> bool:
    return os.environ.get(_FIRST) == str(os.getppid())


def _has_store() -> bool:
    found = launcher()
    return found is not None and found.name == "torchrun" and os.environ.get(_HAS_STORE) == "True"


def _store() -> Any:
    stores: Any = import_module("torch.distributed")
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = stores.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return stores.PrefixStore(f"bitnet-train/{attempt}", store)


def _told() -> str:
    """Wait for the first process, awake, so that a signal is heard."""
    try:
        store = _store()
        while not store.check([_PLACE]):
            time.sleep(_PAUSE_S)
        return store.get(_PLACE).decode()
    except RuntimeError as error:
        raise TrainingError(f"The first process of the run does not answer: {error}") from error


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
