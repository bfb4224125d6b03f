"""The integer product on a GPU's int8 units (`torch._int_mm`), equal to `reference.linear` bit for bit.

cuBLASLt takes int8 matrices of more than 16 rows whose other sizes are multiples of 8, so what is odd is padded with
codes of 0, which add nothing. The sums are int32, exact; a group of inputs is a product of its own, rescaled in the
order of the float contract. torch has the same operator on the CPU, where the tests hold it against the oracle.

Shapes: T tokens, N outputs, K inputs, G groups of K // G inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bitnet_train.kernels.reference import count_groups, split_planes

MULTIPLE, FEWEST_ROWS = 8, 17  # of cuBLASLt: `self.size(0) needs to be greater than 16`
LARGEST_CODE = 128


@torch.no_grad()
def int_product(x_codes: Tensor, w_codes: Tensor) -> Tensor:
    """Return the exact products int32 [T, N] of x_codes int8 [T, K] and w_codes int8 [N, K]; K below 2^24."""
    tokens, outputs, inputs = x_codes.shape[0], w_codes.shape[0], x_codes.shape[1]
    more_inputs = -inputs % MULTIPLE
    x_TK = F.pad(x_codes, (0, more_inputs, 0, max(0, FEWEST_ROWS - tokens)))
    w_NK = F.pad(w_codes, (0, more_inputs, 0, -outputs % MULTIPLE))
    return torch.ops.aten._int_mm(x_TK.contiguous(), w_NK.contiguous().t())[:tokens, :outputs]


@torch.no_grad()
def linear(
    x_codes: Tensor,
    x_scale: Tensor,
    w_codes: Tensor,
    w_scale: Tensor,
    bias: Tensor | None,
    group_size: int,
    planes: int = 1,
) -> Tensor:
    """Return float32 [T, N]: shapes, dtypes and errors are those of `reference.linear`."""
    num_groups = count_groups(w_codes.shape[1], group_size)
    y_TN = x_scale.new_zeros(x_codes.shape[0], w_codes.shape[0])
    for codes, scale in split_planes(w_codes, w_scale, planes) if planes > 1 else [(w_codes, w_scale)]:
        scale_NG = scale.expand(len(codes), num_groups)
        part_TN = torch.zeros_like(y_TN)
        groups = zip(x_codes.split(group_size, dim=1), codes.split(group_size, dim=1), strict=True)
        for group, (x_TK, w_NK) in enumerate(groups):
            part_TN += int_product(x_TK, w_NK).float() * scale_NG[:, group]
        y_TN += part_TN.mul_(x_scale)
    return y_TN if bias is None else y_TN.add_(bias)
