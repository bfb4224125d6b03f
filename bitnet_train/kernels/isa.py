"""Which kernel runs: the best instruction set of this CPU, or the one that BITNET_TRAIN_ISA names.

The choice is made at first use and is the only mutable state of this package. Every choice gives the same bits, so
forcing one is for tests, timings and bug reports.
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
    core, _IMPORT_FAILURE = None, str(error)
else:
    core, _IMPORT_FAILURE = _core, ""

ENVIRONMENT_VARIABLE = "BITNET_TRAIN_ISA"
REFERENCE = "reference"

_chosen: str | None = None


def available_isas() -> tuple[str, ...]:
    """Return what this machine can run, best first: compiled instruction sets, then "reference" (pure torch)."""
    return (*(core.supported_isas() if core else ()), REFERENCE)


def backend() -> str:
    """Return the kernel that runs: "avx512", "avx2", "popcnt", "portable" or "reference".

    Raises KernelError when BITNET_TRAIN_ISA names something else than `available_isas()`.
    """
    global _chosen
    if _chosen is None:
        _chosen = _choose(os.environ.get(ENVIRONMENT_VARIABLE, ""))
    return _chosen


@contextmanager
def forced_isa(isa: str) -> Iterator[None]:
    """Run the body of a `with` statement on one of `available_isas()`; KernelError for any other."""
    global _chosen
    before, _chosen = _chosen, _checked(isa, "forced_isa")
    try:
        yield
    finally:
        _chosen = before


def _choose(forced: str) -> str:
    if forced:
        return _checked(forced, ENVIRONMENT_VARIABLE)
    if core is None:
        warnings.warn(
            f"The compiled kernels of bitnet_train are not installed ({_IMPORT_FAILURE}). Packed layers run on the "
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
        problem = f"is not installed ({_IMPORT_FAILURE})"
    else:
        problem = "is not a known instruction set"
    raise KernelError(
        f"`{source}={isa}` {problem}. Allowed here: {', '.join(available_isas())}. "
        f"Unset {ENVIRONMENT_VARIABLE} to let the CPU decide."
    )
