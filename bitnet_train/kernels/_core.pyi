"""The compiled kernels and the native runtime. Private: `ops.py` and `runtime/native` are their public faces."""

from numpy import float32, int8, int32, uint8
from numpy.typing import NDArray

MAX_GROUP_SIZE: int

Spec = tuple[int, int, int, str, str, bool]
"""rows, inputs, group size, weights, activation, scales are float16"""

def compiled_isas() -> list[str]:
    """Return every instruction set of kernels.inc, best first."""

def supported_isas() -> list[str]:
    """Return those that this CPU can run, best first."""

def kernels() -> list[tuple[str, str, bool]]:
    """Return (name, instruction set, runs here) of every row of kernels.inc."""

def prefer(isa: str, name: str) -> None:
    """Choose kernels from this instruction set downwards ("": all), this name first ("": by the shape)."""

def chosen_kernel(spec: Spec) -> str:
    """Return the kernel that `pack` takes for such a weight, "lookup.avx512" and the like."""

def pack(
    planes: NDArray[uint8],
    scale: NDArray[float32],
    num_inputs: int,
    group_size: int,
    weights: str,
    activation: str,
    num_threads: int,
) -> tuple[NDArray[uint8], str, bool]:
    """Return the stream, the kernel that reads it, and whether its scales are float16."""

def unpack(kernel: str, spec: Spec, stream: NDArray[uint8], codes: NDArray[int8], scale: NDArray[float32]) -> None:
    """Write codes [N, K] and scales [N, G] of a stream."""

def packed_linear(
    kernel: str,
    spec: Spec,
    stream: NDArray[uint8],
    x: NDArray[float32],
    bias: NDArray[float32] | None,
    out: NDArray[float32],
    num_threads: int,
) -> None:
    """Quantise x [T, K], multiply and rescale into out [T, N]."""

def time_linear(
    kernel: str,
    spec: Spec,
    stream: NDArray[uint8],
    x: NDArray[float32],
    out: NDArray[float32],
    num_threads: int,
    repeats: int,
) -> float:
    """Return the seconds of one `packed_linear` without a bias, `repeats` of them timed together."""

def packed_dot(
    kernel: str, spec: Spec, stream: NDArray[uint8], x_codes: NDArray[int8], out: NDArray[int32], num_threads: int
) -> None:
    """Write the exact products [T, N, G] into `out`."""

def read_bandwidth(bytes_per_thread: int, repeats: int, num_threads: int) -> float:
    """Return the bytes per second that all threads together read, each a block of its own; ValueError below 4 KiB."""

def clock_hz() -> float:
    """Return the ticks per second of this core at work, 0 where that is not known."""

INT8_ROWS: int
INT8_BLOCK: int

def int8_isas() -> list[str]:
    """Return the kernels of the int8 table that this CPU runs, best first."""

def int8_linear(
    isa: str,
    x: NDArray[float32],
    stream: NDArray[int8],
    scales: NDArray[float32],
    out: NDArray[float32],
    num_threads: int,
) -> None:
    """Multiply x [T, K] by an int8 table into out [T, V]."""
