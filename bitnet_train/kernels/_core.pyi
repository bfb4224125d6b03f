"""The compiled kernels. Private: `ops.py` checks shapes before it calls, this does not."""

from numpy import float32, int8, int32, int64
from numpy.typing import NDArray

MAX_GROUP_SIZE: int

def compiled_isas() -> list[str]:
    """Return every row of kernels.inc, best first."""

def supported_isas() -> list[str]:
    """Return those that this CPU can run, best first."""

def packed_dot(
    isa: str,
    x_codes: NDArray[int8],
    words: NDArray[int64],
    out: NDArray[int32],
    group_size: int,
    sign_activation: bool,
    num_threads: int,
) -> None:
    """Write the exact products [T, N, G] into `out`."""

def packed_linear(
    isa: str,
    x_codes: NDArray[int8],
    x_scale: NDArray[float32],
    words: NDArray[int64],
    w_scale: NDArray[float32],
    bias: NDArray[float32] | None,
    out: NDArray[float32],
    group_size: int,
    sign_activation: bool,
    num_threads: int,
) -> None:
    """Write the rescaled products [T, N] into `out`."""
