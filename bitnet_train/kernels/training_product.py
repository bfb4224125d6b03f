"""The forward product of a training step by the packed kernels: y = Qa(x) Q(latent)^T * scales + b, in exact integers.

    latent float32 [N, K]  ->  signs, a bit each  ->  the stream of a kernel  ->  y [T, N]

A +-1 weight has changed by the next step, so it is packed anew every time: about as much work as a product with a
hundred tokens. From `MIN_TOKENS` on that and the packed product together take about half the time of a float32 product
(AVX2, 256 x 256 to 768 x 256, 512 tokens). The value is that of evaluation bit for bit (`kernels.reference.linear`); a
float32 product of the same quantised numbers differs from it by rounding. Only the forward is like this: gradients are
no integers.

Only for float32 on AVX2 and AVX-512: bfloat16 has its own units where it is worth using, and other kernels are not
known to be faster than a matrix product of floats. Nothing here has a gradient of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bitnet_train.formats.planes import row_bytes
from bitnet_train.kernels.isa import backend, core
from bitnet_train.kernels.ops import ACTIVATIONS
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme

__all__ = ["MIN_TOKENS", "is_worth_packing", "signed_product"]

MIN_TOKENS = 256
_FAST_ISAS = ("avx2", "avx512")


def is_worth_packing(x: Tensor, dtype: torch.dtype, weight: WeightScheme, activation: ActivationScheme) -> bool:
    """Whether `signed_product` takes rows x [T, K] and the product, in `dtype`, and is the faster way."""
    fits = weight.name == "binary" and activation.name in ACTIVATIONS and x.device.type == "cpu"
    is_float32 = x.dtype == dtype == torch.float32
    return fits and is_float32 and x.shape[0] >= MIN_TOKENS and _is_fast()


@torch.no_grad()
def signed_product(
    x: Tensor, latent: Tensor, scale: Tensor, bias: Tensor | None, activation: ActivationScheme
) -> Tensor:
    """y float32 [T, N] of x float32 [T, K], latent float32 [N, K], scale float32 [N, G] or [1, 1], bias [N] or None."""
    (num_outputs, num_inputs), num_groups = latent.shape, scale.shape[1]
    group_size, threads = num_inputs // num_groups, torch.get_num_threads()
    assert core is not None, "`is_worth_packing` comes first"
    stream, kernel, half = core.pack(
        _sign_plane(latent), _array(scale), num_inputs, group_size, "binary", activation.name, threads
    )
    spec = (num_outputs, num_inputs, group_size, "binary", activation.name, half)
    y = torch.empty(x.shape[0], num_outputs)
    offset = None if bias is None else _array(bias)
    core.packed_linear(kernel, spec, stream, _array(x), offset, y.numpy(), threads)
    return y


def _sign_plane(latent: Tensor) -> np.ndarray:
    """`planes_v1` of the codes of a binary weight, uint8 [1, N, bytes]."""
    bits = np.packbits(_array(latent) >= 0, axis=1, bitorder="little")
    return np.pad(bits, ((0, 0), (0, row_bytes(latent.shape[1]) - bits.shape[1])))[None]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _is_fast() -> bool:
    return core is not None and backend() in _FAST_ISAS
