"""What goes wrong in a command, and when: installed in its process before its first line runs.

A moment is the nth call of a function, named `package.module:Class.method`; what is not there any more is an error, so
a fault cannot silently miss. Each leaves a line in the file that `BITNET_TEST_FIRED` names when it happens.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

FIRED = "BITNET_TEST_FIRED"
NOT_PERMITTED = "no file system may be mounted here"
_DAC_OVERRIDE = 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: what lets root pass over permissions


@dataclass(frozen=True)
class Signal:
    """At a moment, send signals to this process."""

    call: str
    name: str = "SIGTERM"
    number: int = 1
    times: int = 1


@dataclass(frozen=True)
class Raise:
    """At a moment, and at every one after it if `stays`, raise an OSError, or a RuntimeError for `errno` 0."""

    call: str
    errno: int
    number: int = 1
    stays: bool = False


@dataclass(frozen=True)
class BadNumber:
    """Make the loss, or a gradient, of some steps not finite: `steps` from `first` on; or scale the loss up."""

    where: str
    first: int
    steps: int = 1
    factor: float = math.nan


@dataclass(frozen=True)
class Limit:
    """Limit a resource of the process, such as RLIMIT_FSIZE, from the nth call of a function on.

    RLIMIT_AS is limited to so many bytes beyond what is in use.
    """

    name: str
    amount: int
    call: str = ""
    number: int = 1


@dataclass(frozen=True)
class Clock:
    """Let the clock stand at some second since 1970."""

    seconds: float


@dataclass(frozen=True)
class Pause:
    """At a moment, make the file `reached`, and go on once the file `go_on` is there, or nobody waits any more."""

    call: str
    reached: str
    go_on: str
    number: int = 1


@dataclass(frozen=True)
class Unprivileged:
    """Let permissions hold, also for root."""


@dataclass(frozen=True)
class ReadOnly:
    """Let a folder be on a read-only file system, for this process alone; needs the right to mount."""

    path: str


@dataclass(frozen=True)
class Count:
    """Write how many processes were started by this one at a moment."""

    call: str
    path: str
    number: int = 1


Fault = Signal | Raise | BadNumber | Limit | Clock | Pause | Unprivileged | ReadOnly | Count
_KINDS = {
    kind.__name__: kind for kind in (Signal, Raise, BadNumber, Limit, Clock, Pause, Unprivileged, ReadOnly, Count)
}


def as_json(fault: Fault) -> dict[str, Any]:
    """Return a fault as it travels to its process."""
    return {"kind": type(fault).__name__, **asdict(fault)}


def inject(faults: list[dict[str, Any]]) -> None:
    """Install faults in this process."""
    for fault in faults:
        given = dict(fault)
        kind = given.pop("kind")
        _INSTALL[kind](_KINDS[kind](**given))


def _before(call: str, act: Callable[[int], None]) -> None:
    """Have `act` told the number of every call of a function, before it runs."""
    module, _, path = call.partition(":")
    *way, name = path.split(".")
    place: Any = import_module(module)
    for step in way:
        place = getattr(place, step)
    original, count = getattr(place, name), iter(range(1, sys.maxsize))

    def wrapped(*given: Any, **named: Any) -> Any:
        act(next(count))
        return original(*given, **named)

    setattr(place, name, wrapped)


def _fired(what: str) -> None:
    with Path(os.environ[FIRED]).open("a") as file:
        file.write(what + "\n")


def _signal(fault: Signal) -> None:
    def act(number: int) -> None:
        if number == fault.number:
            _fired(fault.name)
            for _ in range(fault.times):
                os.kill(os.getpid(), signal.Signals[fault.name])

    _before(fault.call, act)


def _raise(fault: Raise) -> None:
    def act(number: int) -> None:
        if number == fault.number or (fault.stays and number > fault.number):
            _fired(f"errno {fault.errno}")
            raise OSError(fault.errno, os.strerror(fault.errno)) if fault.errno else RuntimeError("injected")

    _before(fault.call, act)


def _bad_number(fault: BadNumber) -> None:
    from bitnet_train.train.loop.module import BitLightningModule

    def is_due(module: BitLightningModule) -> bool:
        due = fault.first <= module.step < fault.first + fault.steps
        if due:
            _fired(f"{fault.where} of step {module.step}")
        return due

    if fault.where == "loss":
        _spoil_loss(BitLightningModule, is_due, fault.factor)
    else:
        _spoil_gradient(BitLightningModule, is_due)


def _spoil_loss(kind: Any, is_due: Callable[[Any], bool], factor: float) -> None:
    original = kind.token_sums

    def token_sums(self: Any, *given: Any, **named: Any) -> Any:
        made = original(self, *given, **named)
        return replace(made, logits=made.logits * factor, plain=made.plain * factor) if is_due(self) else made

    kind.token_sums = token_sums


def _spoil_gradient(kind: Any, is_due: Callable[[Any], bool]) -> None:
    original = kind.manual_backward

    def manual_backward(self: Any, *given: Any, **named: Any) -> Any:
        made = original(self, *given, **named)
        if is_due(self):
            next(p for p in self.parameters() if p.grad is not None).grad.fill_(math.inf)
        return made

    kind.manual_backward = manual_backward


def _limit(fault: Limit) -> None:
    def set_it() -> None:
        _fired(fault.name)
        which, amount = getattr(resource, fault.name), fault.amount
        if which == resource.RLIMIT_AS:
            amount += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(which, (amount, resource.getrlimit(which)[1]))

    if fault.call:
        _before(fault.call, lambda number: set_it() if number == fault.number else None)
    else:
        set_it()


def _clock(fault: Clock) -> None:
    localtime, strftime = time.localtime, time.strftime
    time.time = lambda: fault.seconds
    time.time_ns = lambda: int(fault.seconds * 1e9)
    time.localtime = lambda seconds=None: localtime(fault.seconds if seconds is None else seconds)
    time.strftime = lambda form, moment=None: strftime(form, moment or localtime(fault.seconds))
    _fired("clock")


def _pause(fault: Pause) -> None:
    warm = os.getppid()

    def act(number: int) -> None:
        if number == fault.number:
            _fired("pause")
            Path(fault.reached).touch()
            while not Path(fault.go_on).exists() and os.getppid() == warm:
                time.sleep(0.01)

    _before(fault.call, act)


def _unprivileged(fault: Unprivileged) -> None:
    """Drop the two capabilities by which root passes over permissions (capset(2), version 3)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    for index in (0, 1, 2):
        sets[index] &= ~_DAC_OVERRIDE
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _fired("unprivileged")


def _read_only(fault: ReadOnly) -> None:
    """Take a view of the mounts of its own (unshare(2)), and mount the folder over itself, read-only, in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    own_mounts, private = 0x20000, (1 << 18) | 0x4000  # CLONE_NEWNS; MS_PRIVATE | MS_REC
    bind, again = 0x1000, 0x1000 | 0x20 | 1  # MS_BIND; MS_BIND | MS_REMOUNT | MS_RDONLY
    path = fault.path.encode()
    steps = (
        lambda: libc.unshare(own_mounts),
        lambda: libc.mount(b"none", b"/", None, ctypes.c_ulong(private), None),
        lambda: libc.mount(path, path, None, ctypes.c_ulong(bind), None),
        lambda: libc.mount(b"none", path, None, ctypes.c_ulong(again), None),
    )
    for step in steps:
        if step() != 0:
            raise OSError(ctypes.get_errno(), f"{NOT_PERMITTED}: {fault.path}")
    _fired("read-only")


def _count(fault: Count) -> None:
    def act(number: int) -> None:
        if number == fault.number:
            tasks = Path("/proc/self/task").iterdir()
            children = [pid for task in tasks for pid in (task / "children").read_text().split()]
            Path(fault.path).write_text(str(len(children)))
            _fired("count")

    _before(fault.call, act)


_INSTALL: dict[str, Callable[[Any], None]] = {
    "Signal": _signal,
    "Raise": _raise,
    "BadNumber": _bad_number,
    "Limit": _limit,
    "Clock": _clock,
    "Pause": _pause,
    "Unprivileged": _unprivileged,
    "ReadOnly": _read_only,
    "Count": _count,
}
