"""The importance matrix of `llama-imatrix`, through the library itself: how loud each input of each weight is.

    importance(w)[k] = mean over tokens of x_k^2        x: the input of the product with w [N, K]

llama.cpp's quantisers weigh the error of column k of w by it, and its types below 3 bits need it. As that tool does,
the weights of blocks alone are looked at (`blk.*`, not embedding and head), in windows of 512 tokens. Source:
`IMatrixCollector` in tools/imatrix/imatrix.cpp. A graph calls back after each of its nodes, where the input of a
matrix product is still in memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bitnet_train.progress import track
from scripts.llama_cpp.libllama import LlamaCpp
from scripts.llama_cpp.libllama_api import GGML_TYPES, EvalCallback, Tensor, libggml

WINDOW_TOKENS = 512
_WEIGHTS_OF_BLOCKS = b"blk."


class _Sums:
    """Sums of squares by the name of the weight, float64 [K], and of how many rows."""

    def __init__(self) -> None:
        self.squares: dict[str, np.ndarray] = {}
        self.rows: dict[str, int] = {}
        self.failed: Exception | None = None

    def on_node(self, node: ctypes._Pointer[Tensor], is_question: bool, _: object) -> bool:
        """Say whether the inputs of a node are wanted; asked again once it is computed, add them."""
        try:
            wanted = _is_product_of_a_block(node)
            if wanted and not is_question:
                self._add(node.contents.src[0].contents.name.decode(), _values(node.contents.src[1].contents))
        except Exception as error:  # ctypes would print and forget it
            self.failed = error
            return False
        return wanted or not is_question

    def _add(self, name: str, x: np.ndarray) -> None:
        squares = np.square(x, dtype=np.float64).sum(0)
        self.squares[name] = self.squares.get(name, 0.0) + squares
        self.rows[name] = self.rows.get(name, 0) + len(x)


def importance_of(file: Path, rows: Sequence[Sequence[int]], *, num_threads: int = 1) -> dict[str, np.ndarray]:
    """Return the importance of every weight of the blocks of a GGUF, float32 [K] by its name, over rows of ids."""
    sums = _Sums()
    callback = EvalCallback(sums.on_node)
    longest = max(map(len, rows))
    with LlamaCpp(file, context_tokens=longest, num_threads=num_threads, on_node=callback) as model:
        for ids in track(rows, "importance", total=len(rows)):
            model.logits(ids)
            if sums.failed is not None:
                raise sums.failed
    return {name: (squares / sums.rows[name]).astype(np.float32) for name, squares in sums.squares.items()}


def _is_product_of_a_block(node: ctypes._Pointer[Tensor]) -> bool:
    if libggml().ggml_op_desc(node) != b"MUL_MAT":
        return False
    return node.contents.src[0].contents.name.startswith(_WEIGHTS_OF_BLOCKS)


def _values(x: Tensor) -> np.ndarray:
    """Return the input of a product, float32 [T, K]: a view of memory that the next node may overwrite."""
    width, count = x.ne[0], x.ne[1]
    assert x.type == GGML_TYPES["f32"], x.type
    assert (x.nb[0], x.nb[1], x.ne[2], x.ne[3]) == (4, 4 * width, 1, 1), "a plain matrix"
    return np.ctypeslib.as_array(ctypes.cast(x.data, ctypes.POINTER(ctypes.c_float)), (count, width))
