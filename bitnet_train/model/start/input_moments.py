"""Second moments of what a layer reads: X^T X over calibration text, H in the formulas of GPTQ and AWQ.

Rows are padded on the right; only real tokens count. A pass ends at the layer, so that what comes after costs nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitnet_train.model.start.blocks import BlockCall, layer_inputs, run_until_reached

_BATCH_ROWS = 4


@torch.no_grad()
def second_moments(block: nn.Module, layer: nn.Module, call: BlockCall, hidden: Tensor, is_real: Tensor) -> Tensor:
    """Return sum x^T x, float32 [K, K], of what `layer` reads at the real tokens."""
    sums: list[Tensor] = []
    with layer_inputs(layer, lambda x: sums.append(_product(x, real))):
        for rows in row_batches(len(hidden)):
            real = is_real[rows]
            run_until_reached(block, hidden[rows], call)
            sums = [sums[0] + sums[1]] if len(sums) == 2 else sums
    return sums[0]


def _product(x: Tensor, real: Tensor) -> Tensor:
    x = x[real] if x.shape[:-1] == real.shape else x.reshape(-1, x.shape[-1])
    return x.float().t() @ x.float()


def row_batches(num_rows: int) -> list[slice]:
    """Cut rows into the batches that calibration runs with."""
    return [slice(first, first + _BATCH_ROWS) for first in range(0, num_rows, _BATCH_ROWS)]
