"""The compiled kernels and the native runtime. Private: `ops.py` and `runtime/native` are their public faces."""

from collections.abc import Callable
from collections.abc import Sequence as Sequence_
from typing import Any

from numpy import float32, float64, int8, int32, int64, uint8
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

def packed_linear_codes(
    kernel: str,
    spec: Spec,
    stream: NDArray[uint8],
    x_codes: NDArray[int8],
    x_scale: NDArray[float32],
    bias: NDArray[float32] | None,
    out: NDArray[float32],
    num_threads: int,
) -> None:
    """Multiply tokens that are quantised already, codes [T, K] and scale [T, 1], and rescale into out [T, N].

    ValueError for codes that the activation has not.
    """

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
    """Write the exact products [T, N, G] into `out`. ValueError for codes that the activation has not."""

def read_bandwidth(bytes_per_thread: int, repeats: int, num_threads: int) -> float:
    """Return the bytes per second that all threads together read, each a block of its own; ValueError below 4 KiB."""

def clock_hz() -> float:
    """Return the ticks per second of this core at work, 0 where that is not known."""

MAX_INT8_INPUTS: int

def int8_matrix_isas() -> list[str]:
    """Return the instruction sets of the int8 products that this CPU runs, best first."""

def pack_latent(
    latent: NDArray[float32],
    scale: NDArray[float32],
    weight: str,
    activation: str,
    for_backward: bool,
    num_threads: int,
) -> tuple[int, NDArray[uint8], str, bool, NDArray[uint8], str, Int8Transposed | None]:
    """Return the first row that is not finite or -1; stream, kernel, half scales; for dx: signs, kernel; or codes."""

def input_gradient(
    kernel: str,
    stream: NDArray[uint8],
    alpha: NDArray[float32],
    dy: NDArray[float32],
    dx: NDArray[float32],
    num_threads: int,
) -> None:
    """Write dx [T, K] of dy [T, N], alpha [N] and the signs transposed of `pack_latent`."""

class Int8Transposed:
    """A weight [N, K] as int8 codes with a step a row, for dx: made by `pack_latent`."""

    def input_gradient(self, dy: NDArray[float32], dx: NDArray[float32], num_threads: int) -> None:
        """Write dx [T, K] of dy [T, N]."""
    @property
    def bytes(self) -> int: ...

def attention_forward(
    q: NDArray[float32],
    k: NDArray[float32],
    v: NDArray[float32],
    mask: NDArray[uint8] | None,
    scale: float,
    out: NDArray[float32],
    lse: NDArray[float32],
    num_threads: int,
) -> None:
    """Write out [B, L, H, D] and lse [B, H, L] of q [B, H, L, D], k and v [B, G, L, D], mask [B, L, L]."""

def attention_backward(
    q: NDArray[float32],
    k: NDArray[float32],
    v: NDArray[float32],
    mask: NDArray[uint8] | None,
    scale: float,
    out: NDArray[float32],
    lse: NDArray[float32],
    d_out: NDArray[float32],
    dq: NDArray[float32],
    dk: NDArray[float32],
    dv: NDArray[float32],
    num_threads: int,
) -> None:
    """Write dq [B, L, H, D], dk and dv [B, L, G, D] of what the forward was given and gave, and d_out [B, L, H, D]."""

def join_openmp(joined: bool) -> bool:
    """Let kernels run on the threads of the OpenMP that is loaded, or no more; return what held before."""

def int8_weight_gradient(
    dy: NDArray[float32], x_codes: NDArray[int8], x_scale: NDArray[float32], dw: NDArray[float32], num_threads: int
) -> None:
    """Write dw [N, K] of dy [T, N], x_codes [T, K] and x_scale [T, 1]."""

class Int8Weight:
    """An int8 weight [N, K], with a scale a row, arranged for int8 inputs."""

    def __init__(self, codes: NDArray[int8], scale: NDArray[float32], num_threads: int) -> None: ...
    def multiply(
        self,
        x_codes: NDArray[int8],
        x_scale: NDArray[float32],
        bias: NDArray[float32] | None,
        out: NDArray[float32],
        num_threads: int,
    ) -> None:
        """Write out [T, N] of x_codes [T, K] and x_scale [T, 1]."""

    @property
    def bytes(self) -> int: ...

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

def float_isas() -> list[str]:
    """Return the instruction sets of the float operations that this CPU runs, best first."""

def int8_attention_isas() -> list[str]:
    """Return the instruction sets of attention over int8 that this CPU runs, best first; all give the same bits."""

def float_norm(x: NDArray[float32], weight: NDArray[float32], eps: float, isa: str = "") -> NDArray[float32]:
    """Return the RMS norm of the rows of x [T, K]."""

def float_swiglu(gate: NDArray[float32], up: NDArray[float32], isa: str = "") -> NDArray[float32]:
    """Return gate / (1 + exp(-gate)) * up, [T, K] each."""

def float_rotary(inv_freq: NDArray[float32], scaling: float, positions: NDArray[int64]) -> NDArray[float32]:
    """Return cosines and sines [T, 2, D / 2] of positions [T] and frequencies [D / 2]."""

def float_linear(
    x: NDArray[float32],
    weight: NDArray[uint8],
    dtype: str,
    bias: NDArray[float32] | None,
    num_threads: int,
    isa: str = "",
) -> NDArray[float32]:
    """Return [T, N] of x [T, K] and a weight [N, bytes of K values of `dtype`]."""

def float_attention(
    q: NDArray[float32],
    k: NDArray[float32],
    v: NDArray[float32],
    first_key: int = 0,
    window: int = 0,
    num_threads: int = 1,
    isa: str = "",
    cache_dtype: str = "float32",
) -> NDArray[float32]:
    """Return [T, H, D] of rotated q [T, H, D] and k, v [G, S, D] of the positions from `first_key`; 0: no window."""

class Sampler:
    """Draws the tokens of one text, which begins with `prompt`: the same seed gives the same tokens."""

    def __init__(
        self,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        repetition_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        logit_bias: dict[int, float] = ...,
        seed: int = 0,
        prompt: Sequence_[int] = ...,
    ) -> None: ...
    def draw(self, logits: NDArray[float32]) -> int:
        """Return the next token of logits [vocab], and remember it."""

    def shares(self, logits: NDArray[float32]) -> tuple[NDArray[int32], NDArray[float64]]:
        """Return the tokens that `draw` would choose from, likeliest first, and their probabilities; draw nothing."""

def draw_rows(samplers: Sequence_[Sampler], logits: NDArray[float32]) -> NDArray[int32]:
    """Return a token for each row of logits [S, vocab], drawn by the sampler of that row."""

class Sequence:
    """Keys and values of the tokens that a model has read; `Model.new_sequence` makes one."""

    @property
    def length(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def truncate(self, length: int) -> None:
        """Forget the tokens from `length` on."""

    def copy(self) -> Sequence:
        """Return a sequence that goes on from here by itself; the memory is shared until one of them writes."""

    @property
    def cache_dtype(self) -> str: ...
    def keys_values(self) -> list[NDArray[Any]]:
        """Return keys and values, [layers, kv_heads, length, head_dim] each, as they are kept.

        They are float32, or int8; scales float32 [layers, kv_heads, length] of keys and of values follow those.
        """

    def load(self, *stored: NDArray[Any]) -> None:
        """Replace everything by what `keys_values` of a sequence of this type returned."""

class Model:
    """A Llama-family model: the setters copy what they are given, `finish` checks that nothing is missing."""

    def __init__(
        self,
        kind: str,
        *,
        hidden: int,
        ff: int,
        layers: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        vocab: int,
        max_positions: int,
        rms_eps: float,
        inv_freq: NDArray[float32],
        rope_scaling: float = 1.0,
        sliding_window: int = 0,
        isa: str = "",
    ) -> None: ...
    def set_norm(self, name: str, values: NDArray[float32]) -> None: ...
    def set_packed(
        self,
        name: str,
        planes: NDArray[uint8],
        scale: NDArray[float32],
        bias: NDArray[float32] | None,
        num_inputs: int,
        group_size: int,
        weights: str,
        activation: str,
    ) -> None: ...
    def set_packed_embedding(
        self, name: str, planes: NDArray[uint8], scale: NDArray[float32], weights: str
    ) -> None: ...
    def set_dense(self, name: str, array: NDArray[uint8], dtype: str, bias: NDArray[float32] | None = None) -> None: ...
    def set_int8(
        self, name: str, codes: NDArray[int8], scale: NDArray[float32], bias: NDArray[float32] | None = None
    ) -> None: ...
    def tie_head(self) -> None: ...
    def finish(self, num_threads: int) -> None: ...
    def new_sequence(self, max_tokens: int, cache_dtype: str = "float32") -> Sequence: ...
    def forward(
        self, sequences: Sequence_[Sequence], token_ids: Sequence_[NDArray[int32]], all_logits: bool = False
    ) -> NDArray[float32]:
        """Append tokens to each sequence; logits [sequences, vocab] after the last of each, or [all tokens, vocab]."""

    def generate(
        self,
        sequence: Sequence,
        token_ids: NDArray[int32],
        max_new_tokens: int,
        sampler: Sampler,
        stop_ids: Sequence_[int] = ...,
        on_token: Callable[[int], object] | None = None,
    ) -> NDArray[int32]:
        """Continue a sequence; `on_token` gets every id, and ends the continuation by returning True."""

    @property
    def num_threads(self) -> int: ...
    @property
    def float_isa(self) -> str: ...
    def memory_bytes(self) -> dict[str, int]: ...
    def kernels(self) -> dict[str, str]: ...
