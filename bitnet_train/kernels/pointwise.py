"""The gradients of a decoder block's norms and gated units: compiled, in one pass over memory, or in torch.

```
norm    y = w * n,  n = x * r,  r = 1 / sqrt(mean(x^2) + eps)                  arXiv 1910.07467
        dx = r * (g - n * mean(g * n)),  g = dy * w                            dw = sum over the tokens of dy * n
unit    y = silu(gate) * up,  silu(z) = z * s(z),  s(z) = 1 / (1 + exp(-z))    SwiGLU, arXiv 2002.05202
        d_up = dy * silu(gate)              d_gate = dy * up * s * (1 + gate * (1 - s)),  s = s(gate)
```

The kernels compute in float32 and round once, torch's operations round each; so they differ in the last bits, as
instruction sets do. No result depends on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bitnet_train.kernels.isa import REFERENCE, backend, core

__all__ = ["gated_unit_gradients", "norm_gradients"]


@torch.no_grad()
def gated_unit_gradients(gate: Tensor, up: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Return (d_gate, d_up) of gate, up and dy, of one shape and type."""
    dtype = gate.dtype
    compiled = _core(gate, up, dy)
    if compiled is None or dtype not in (torch.float32, torch.bfloat16) or not up.dtype == dy.dtype == dtype:
        return torch.ops.aten.silu_backward(dy * up, gate), F.silu(gate).mul_(dy)
    inputs = [x.contiguous() for x in (gate, up, dy)]
    made = torch.empty_like(inputs[0]), torch.empty_like(inputs[0])
    compiled.gated_unit_gradients(*(_numbers(x) for x in (*inputs, *made)), torch.get_num_threads())
    return made


@torch.no_grad()
def norm_gradients(
    x: Tensor, rate: Tensor, weight: Tensor, dy: Tensor, *, with_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Return (dx [.., K], dw [K] or None) of x and dy [.., K], rate float32 [.., 1] and weight [K]."""
    compiled = _core(x, rate, weight, dy)
    if compiled is None or any(tensor.dtype != torch.float32 for tensor in (x, rate, weight, dy)):
        return _norm_in_torch(x, rate, weight, dy, with_weight)
    width, inputs = x.shape[-1], [tensor.contiguous() for tensor in (x, rate, weight, dy)]
    dx, dw = torch.empty_like(inputs[0]), torch.empty(width) if with_weight else None
    rows, rates, weights, dys = (_numbers(tensor) for tensor in inputs)
    arrays = rows.reshape(-1, width), rates, weights, dys.reshape(-1, width), _numbers(dx).reshape(-1, width)
    compiled.norm_gradients(*arrays, None if dw is None else dw.numpy(), torch.get_num_threads())
    return dx, dw


def _norm_in_torch(
    x: Tensor, rate: Tensor, weight: Tensor, dy: Tensor, with_weight: bool
) -> tuple[Tensor, Tensor | None]:
    normal = x.to(torch.float32) * rate
    dw = (dy * normal).flatten(0, -2).sum(0).to(weight.dtype) if with_weight else None
    inner = dy * weight
    mean = torch.linalg.vecdot(inner, normal).unsqueeze(-1).div_(-x.shape[-1])
    return normal.mul_(mean).add_(inner).mul_(rate).to(x.dtype), dw


def _core(*tensors: Tensor) -> Any:
    """The compiled module where it is in use, has these kernels and all tensors lie on the CPU, else None."""
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    return core if on_cpu and core is not None and hasattr(core, "norm_gradients") and backend() != REFERENCE else None


def _numbers(tensor: Tensor) -> np.ndarray:
    """Flat, the bits of bfloat16 as uint16."""
    flat = torch.from_dlpack(tensor.detach().reshape(-1))  # as in `fake_quantize`
    return (flat.view(torch.uint16) if flat.dtype == torch.bfloat16 else flat).numpy()
