"""Attention of a training step on the compiled kernels, one operation of autograd; no tensor is tokens by tokens.

```
s_ij = scale q_i . k_j       over the j that i sees: those up to i, or those of a mask
lse_i = log sum_j exp(s_ij)          p_ij = exp(s_ij - lse_i)          out_i = sum_j p_ij v_j
dv_j = sum_i p_ij dout_i             ds_ij = p_ij (dout_i . v_j - dout_i . out_i)
dq_i = scale sum_j ds_ij k_j         dk_j = scale sum_i ds_ij q_i
```

As in FlashAttention-2 (arXiv 2307.08691) out and lse are all that the backward pass needs beside the inputs; unlike
there, the scores of some tokens against all are held at once, which fit a core's cache. Everything is computed in
float32, whatever the type of the inputs, and is kept in theirs. No result depends on the number of threads; instruction
sets differ in the last bits. A token that sees none has 0 and gives no gradient.

Shapes: B sequences, H heads, G key/value heads, L tokens, D dimensions of a head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bitnet_train.errors import KernelError
from bitnet_train.kernels.isa import REFERENCE, backend, core

__all__ = ["fits", "fused_attention"]

_DTYPES = (torch.float32, torch.bfloat16)
_DIM_STEP, _MAX_DIM = 16, 256  # of a head; csrc/training/attention.h


def fits(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernels are here and take q [B, H, L, D], k and v [B, G, L, D]: on the CPU, of one type, L alike."""
    if core is None or not hasattr(core, "attention_forward") or backend() == REFERENCE:
        return False
    sizes = q.shape[0], k.shape[1], *q.shape[2:]
    return (
        all(tensor.device.type == "cpu" and tensor.dtype == q.dtype and tensor.ndim == 4 for tensor in (q, k, v))
        and q.dtype in _DTYPES
        and k.shape == v.shape == sizes
        and q.shape[1] % k.shape[1] == 0
        and q.shape[3] % _DIM_STEP == 0
        and 0 < q.shape[3] <= _MAX_DIM
    )


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Return [B, L, H, D] in the type of q [B, H, L, D]; k and v [B, G, L, D], differentiable once in all three.

    `mask` is bool [B, L, L], True where token i sees j, or None: all up to itself. `scale` is above 0.

    Raises
    ------
    KernelError
        For inputs that do not fit (`fits`), and for a mask of another shape.
    """
    if not fits(q, k, v):
        raise KernelError(
            f"Attention of q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)} in {q.dtype} on {q.device} has no "
            "kernel here: float32 or bfloat16 on the CPU, of as many tokens, heads of a multiple of 16 up to 256."
        )
    num_rows, length = q.shape[0], q.shape[2]
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (num_rows, length, length)):
        raise KernelError(f"`mask` must be bool {[num_rows, length, length]}, not {mask.dtype} {list(mask.shape)}.")
    result = _FusedAttention.apply(q, k, v, mask, scale)
    assert isinstance(result, Tensor)
    return result


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        num_rows, num_heads, length, dim = q.shape
        out, lse = torch.empty(num_rows, length, num_heads, dim), torch.empty(num_rows, num_heads, length)
        inputs = _inputs(q, k, v, mask, scale)
        assert core is not None
        core.attention_forward(*inputs, out.numpy(), lse.numpy(), torch.get_num_threads())
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, mask, out, lse)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, mask, out, lse = ctx.saved_tensors
        made = [torch.empty(x.shape[0], x.shape[2], x.shape[1], x.shape[3]) for x in (q, k, v)]
        inputs = _inputs(q, k, v, mask, ctx.scale)
        given = _floats(out), lse.numpy(), _floats(grad_outputs[0].contiguous())
        assert core is not None
        core.attention_backward(*inputs, *given, *(x.numpy() for x in made), torch.get_num_threads())
        return *(x.transpose(1, 2).to(q.dtype) for x in made), None, None


def _inputs(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Any, ...]:
    seen = None if mask is None else mask.contiguous().view(torch.uint8).numpy()
    return *(_floats(x if x.stride(-1) == 1 else x.contiguous()) for x in (q, k, v)), seen, scale


def _floats(x: Tensor) -> np.ndarray:
    return x.detach().float().numpy()
