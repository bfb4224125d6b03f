"""Which kernels run: the best of this CPU, or those that BITNET_TRAIN_ISA and BITNET_TRAIN_KERNEL name.

BITNET_TRAIN_ISA names an instruction set; where it has no kernel for a weight, the next lower one is used.
BITNET_TRAIN_KERNEL names a kind of kernel ("lookup", "vnni", "popcount", ...), used wherever it accepts the weight. A
weight is packed for one kernel, so the choice counts when weights are loaded. It is made at first use and is the only
mutable state of this package. Every choice gives the same bits: forcing one is for tests, timings and bug reports.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from bitnet_train.errors import KernelError

try:
    from bitnet_train.kernels import _core
except ImportError as error:
    core, IMPORT_FAILURE = None, str(error)
else:
    core, IMPORT_FAILURE = _core, ""

ENVIRONMENT_VARIABLE = "BITNET_TRAIN_ISA"
KERNEL_VARIABLE = "BITNET_TRAIN_KERNEL"
REFERENCE = "reference"

_chosen: tuple[str, str] | None = None


def available_isas() -> tuple[str, ...]:
    """Return what this machine can run, best first: compiled instruction sets, then "reference" (pure torch)."""
    return (*(core.supported_isas() if core else ()), REFERENCE)


def backend() -> str:
    """Return the instruction set in use: "avx512", "avx2", "neon", ..., "portable" or "reference".

    Raises KernelError when BITNET_TRAIN_ISA or BITNET_TRAIN_KERNEL name what is not there.
    """
    if _chosen is None:
        _use(_choose(os.environ.get(ENVIRONMENT_VARIABLE, "")), _checked_kernel(os.environ.get(KERNEL_VARIABLE, "")))
    assert _chosen is not None
    return _chosen[0]


def kernel_names() -> tuple[str, ...]:
    """Return the names of the kernels that this machine can run, as BITNET_TRAIN_KERNEL takes them."""
    rows = core.kernels() if core else []
    return tuple(dict.fromkeys(name for name, _isa, runs in rows if runs))


@contextmanager
def forced_isa(isa: str, kernel: str = "") -> Iterator[None]:
    """Pack weights for one of `available_isas()`, and one of `kernel_names()`, in the body of a `with` statement.

    Raises KernelError for any other name.
    """
    backend()
    assert _chosen is not None
    before = _chosen
    _use(_checked(isa, "forced_isa"), _checked_kernel(kernel))
    try:
        yield
    finally:
        _use(*before)


def _use(isa: str, kernel: str) -> None:
    global _chosen
    _chosen = isa, kernel
    if core:
        core.prefer("" if isa == REFERENCE else isa, kernel)


def _checked_kernel(name: str) -> str:
    if not name or name in kernel_names():
        return name
    raise KernelError(
        f"`{KERNEL_VARIABLE}={name}` is not a kernel of this machine. Allowed here: {', '.join(kernel_names())}. "
        f"Unset {KERNEL_VARIABLE} to let the shape of each weight decide."
    )


def _choose(forced: str) -> str:
    if forced:
        return _checked(forced, ENVIRONMENT_VARIABLE)
    if core is None:
        warnings.warn(
            f"The compiled kernels of bitnet_train are not installed ({IMPORT_FAILURE}). Packed layers run on the "
            "pure torch reference: same bits, many times slower. Install a C++17 compiler, then bitnet-train again.",
            RuntimeWarning,
            stacklevel=3,
        )
    return available_isas()[0]


def _checked(isa: str, source: str) -> str:
    if isa in available_isas():
        return isa
    if core and isa in core.compiled_isas():
        problem = "needs instructions that this CPU or its operating system lacks"
    elif core is None:
        problem = f"is not installed ({IMPORT_FAILURE})"
    else:
        problem = "is not a known instruction set"
    raise KernelError(
        f"`{source}={isa}` {problem}. Allowed here: {', '.join(available_isas())}. "
        f"Unset {ENVIRONMENT_VARIABLE} to let the CPU decide."
    )
