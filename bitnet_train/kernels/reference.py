"""The oracle: the product of packed codes in plain torch, exact, on any device. This file is the float contract.

    acc[t,n,g] = sum over k in group g of x_codes[t,k] * w_codes[n,k]          an exact integer, |acc| < 2^31
    y = 0;  for g in order: y = y + (w_scale[n,g] * float(acc[t,n,g]));  y = y * x_scale[t];  y = y + bias[n]

in float32, every operation rounded to nearest even, none fused. A layer in evaluation mode and every compiled kernel
give these very bits, so a packed model and the model it was packed from have identical logits, not similar ones.

A weight of k planes, whose codes are the odd integers c = sum over p of 2^p b_p with b_p = +-1, is k weights of +-1:
that of plane p has the codes b_p and the scales 2^p w_scale, and by the lines above, without a bias, the output y_p.

    y = (y_0 + y_1) + ...;  y = y + bias[n]                                    float32, as many terms as planes

So every kernel of +-1 weights is one of several planes. Their acc is that of the codes c.

The integers are computed by floating-point matrix products, which are exact as long as every partial sum fits the
significand: 128 * group_size < 2^24 for float32, and always for float64 within the bound below.

Shapes: T tokens, N outputs, K inputs, G groups of K // G inputs that share a weight scale.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bitnet_train.errors import KernelError

MAX_GROUP_SIZE = (2**31 - 1) // 128
"""The largest group whose integer product fits int32 for every int8 activation: 16,777,215 inputs."""

_FLOAT32_EXACT = 2**24
_LARGEST_CODE = 128


def grouped_dot(x_codes: torch.Tensor, w_codes: torch.Tensor, group_size: int) -> torch.Tensor:
    """Return the exact products int32 [T, N, G] of x_codes int8 [T, K] and w_codes int8 [N, K].

    Raises KernelError when `group_size` does not divide K or exceeds `MAX_GROUP_SIZE`.
    """
    num_groups = count_groups(w_codes.shape[1], group_size)
    x_TGK = x_codes.unflatten(1, (num_groups, group_size)).double()
    w_NGK = w_codes.unflatten(1, (num_groups, group_size)).double()
    with torch.autocast(x_codes.device.type, enabled=False):
        return torch.einsum("tgk,ngk->tng", x_TGK, w_NGK).to(torch.int32)


def rescale(
    acc: torch.Tensor, w_scale: torch.Tensor, x_scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Turn products int32 [T, N, G] into float32 [T, N] by the float contract.

    w_scale float32 [N, G] or [1, 1], x_scale float32 [T, 1], bias float32 [N] or None.
    """
    w_scale = w_scale.expand(acc.shape[1:])
    y_TN = torch.zeros(acc.shape[:2], dtype=torch.float32, device=acc.device)
    for group in range(acc.shape[2]):
        y_TN += acc[:, :, group].float() * w_scale[:, group]
    return _finish(y_TN, x_scale, bias)


def linear(
    x_codes: torch.Tensor,
    x_scale: torch.Tensor,
    w_codes: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor | None,
    group_size: int,
    planes: int = 1,
) -> torch.Tensor:
    """Return float32 [T, N], for one plane equal bit for bit to `rescale(grouped_dot(...), ...)`, one group at a time.

    x_codes int8 [T, K], x_scale float32 [T, 1], w_codes int8 [N, K], w_scale float32 [N, G] or [1, 1], bias float32
    [N] or None; ternary weights have one plane here. Raises KernelError when `group_size` does not divide K or exceeds
    `MAX_GROUP_SIZE`.
    """
    if planes > 1:
        first, *others = split_planes(w_codes, w_scale, planes)
        y_TN = linear(x_codes, x_scale, *first, None, group_size)
        for part in others:
            y_TN += linear(x_codes, x_scale, *part, None, group_size)
        return y_TN if bias is None else y_TN.add_(bias)
    num_groups = count_groups(w_codes.shape[1], group_size)
    w_scale = w_scale.expand(w_codes.shape[0], num_groups)
    exact = torch.float32 if _LARGEST_CODE * group_size < _FLOAT32_EXACT else torch.float64
    y_TN = x_scale.new_zeros(x_codes.shape[0], w_codes.shape[0])
    with torch.autocast(x_codes.device.type, enabled=False):
        for group, (x_TK, w_NK) in enumerate(
            zip(x_codes.split(group_size, dim=1), w_codes.split(group_size, dim=1), strict=True)
        ):
            acc_TN = x_TK.to(exact) @ w_NK.to(exact).T
            y_TN += acc_TN.float() * w_scale[:, group]
    return _finish(y_TN, x_scale, bias)


def split_planes(
    w_codes: torch.Tensor, w_scale: torch.Tensor, planes: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (codes int8 of -1 and +1, scale float32) of each plane of a weight of odd codes, the lowest first."""
    number = (w_codes + (2**planes - 1)) >> 1
    for plane in range(planes):
        yield 2 * (number >> plane & 1) - 1, 2**plane * w_scale


def count_groups(num_inputs: int, group_size: int, largest_code: int = 1) -> int:
    """Return G = K // group_size, or raise KernelError when the groups do not fill K or could overflow int32."""
    most = MAX_GROUP_SIZE // largest_code
    if not 1 <= group_size <= most:
        raise KernelError(
            f"Group size {group_size} is outside 1 to {most}, beyond which an int32 sum may overflow. "
            "Use a group granularity whose `weight.group_size` divides the number of inputs."
        )
    if num_inputs % group_size:
        raise KernelError(
            f"Group size {group_size} does not divide the {num_inputs} inputs of this weight. "
            "Choose a `weight.group_size` that does."
        )
    return num_inputs // group_size


def _finish(y_TN: torch.Tensor, x_scale: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    y_TN *= x_scale
    return y_TN if bias is None else y_TN.add_(bias)
