"""The oracle of attention over keys and values of int8: queries and weights of 16 bits, exact sums, in plain torch.

Of a query q and the positions i that it sees, in pages of 256 positions, each by itself:

    s = 32512 / max(max|q|, 1e-5);  q16 = round(q * s);  factor = (1 / s) * scale
    score[i] = (float32(sum over d of q16[d] * k[i,d]) * k_scale[i]) * factor
    p[i] = exp(score[i] - maximum);  x[i] = p[i] * v_scale[i];  largest = max(max x[i], 1e-30)
    w16[i] = round(x[i] * (32512 / largest))
    weighted[d] = float32(sum over i of w16[i] * v[i,d]) * (largest / 32512)

and y = weighted * (1 / sum p) once the pages are folded: both sides times exp(own maximum - common maximum). Everything
is float32, one rounding an operation, none fused, halves to even. The online softmax is that of Milakov and Gimelshein
(arXiv 1805.02867); that q and the weights are integers as well is ours: 32512 = 127 * 256 splits into two signed bytes,
which every CPU multiplies by bytes exactly, so all instruction sets give the same bits.

`exp` is 2^n P(r) with t = x * log2(e), n = round(t), r = t - n, P of degree 5 with a relative error of 4 u (u = 2^-24),
and 0 for t < -125. A sum of p has sixteen parts, of the positions that are equal modulo 16, added in order and then
halved: part j takes part j + 8, j + 4, j + 2, j + 1.

Shapes: T tokens, the last of S positions; H heads, G key/value heads, D head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PAGE, _LANES = 256, 16
_LARGEST = torch.tensor(32512.0)  # a tensor: torch divides a Python number by a tensor as a product with 1 / x
_POLYNOMIAL = (0.001326472731307149, 0.009671512991189957, 0.05550733581185341, 0.24022242426872253, 0.6931470036506653)

_State = tuple[Tensor, Tensor, Tensor]  # maximum and sum of weights [H, T], weighted values [H, T, D]


def int8_attention(
    q: Tensor,
    keys: tuple[Tensor, Tensor],
    values: tuple[Tensor, Tensor],
    *,
    scale: float | None = None,
    first_key: int = 0,
    window: int = 0,
) -> Tensor:
    """Return float32 [T, H, D].

    Parameters
    ----------
    q
        Queries after head norms and rotation, float32 [T, H, D].
    keys, values
        Codes int8 [G, S, D] and scales float32 [G, S]; G divides H.
    scale
        What scores are multiplied by, rounded to float32; None is 1 / sqrt(D).
    first_key
        The position of the first key: pages begin at multiples of 256.
    window
        Positions that a token sees, itself included; 0 is all before it.
    """
    tokens, heads, width = q.shape
    positions = keys[0].shape[1]
    group = heads // keys[0].shape[0]
    (k, k_scale), (v, v_scale) = ([part.repeat_interleave(group, 0) for part in pair] for pair in (keys, values))
    q16, factor = _quantize_queries(q.transpose(0, 1))
    factor = factor * torch.tensor(width**-0.5 if scale is None else scale)
    at = torch.arange(positions) + first_key
    own = at[positions - tokens :, None]
    seen = (at <= own) & ((at > own - window) if window else True)
    total = None
    for page in range(first_key // _PAGE, (first_key + positions - 1) // _PAGE + 1):
        part = slice(max(0, page * _PAGE - first_key), (page + 1) * _PAGE - first_key)
        dots = (q16.long().unsqueeze(2) * k[:, None, part].long()).sum(-1).float()
        score = dots * k_scale[:, None, part] * factor
        score = score.masked_fill(~seen[:, part], -torch.inf)
        lane = (at[part] % _PAGE).tolist()
        state = _weigh(score, v[:, part], v_scale[:, part], lane)
        total = state if total is None else _fold(state, total)
    assert total is not None
    _, total_sum, weighted = total
    return (weighted * (1.0 / total_sum).unsqueeze(-1)).transpose(0, 1).contiguous()


def _quantize_queries(q: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes [H, T, D] and 1 / s [H, T, 1]."""
    s = _LARGEST / q.abs().amax(-1, keepdim=True).clamp_min(1e-5)
    return (q * s).clamp(-32512, 32512).round(), 1.0 / s


def _weigh(score: Tensor, v: Tensor, v_scale: Tensor, at: list[int]) -> _State:
    """Return maximum and sum [H, T] and weighted [H, T, D] of scores [H, T, S] at places `at` of a page."""
    maximum = score.amax(-1)
    p = _exp(score - maximum.masked_fill(maximum == -torch.inf, 0.0).unsqueeze(-1))
    page = p.new_zeros(*p.shape[:2], _PAGE)
    page[..., at] = p
    x = p * v_scale.unsqueeze(1)
    largest = x.amax(-1, keepdim=True).clamp_min(1e-30)
    w16 = (x * (_LARGEST / largest)).round()
    weighted = (w16.double() @ v.double()).float() * (largest / _LARGEST)
    return maximum, _sum(page), weighted


def _sum(p: Tensor) -> Tensor:
    lanes = p.new_zeros(*p.shape[:-1], _LANES)
    for block in p.split(_LANES, -1):
        lanes = lanes + block
    while lanes.shape[-1] > 1:
        low, high = lanes.chunk(2, -1)
        lanes = low + high
    return lanes.squeeze(-1)


def _fold(state: _State, total: _State) -> _State:
    """Return the sum of both; where a row has seen nothing in one of them, the other."""
    maximum = torch.maximum(state[0], total[0])
    factors = [_exp(part[0] - maximum) for part in (total, state)]
    summed = total[1] * factors[0] + state[1] * factors[1]
    weighted = total[2] * factors[0].unsqueeze(-1) + state[2] * factors[1].unsqueeze(-1)
    for other, blind in ((total, state[0] == -torch.inf), (state, total[0] == -torch.inf)):
        summed = torch.where(blind, other[1], summed)
        weighted = torch.where(blind.unsqueeze(-1), other[2], weighted)
    return maximum, summed, weighted


def _exp(x: Tensor) -> Tensor:
    """Return exp(x) of x <= 0."""
    t = x * torch.tensor(1.44269504)
    n = t.clamp_min(-126.0).round()
    r = t.clamp_min(-126.0) - n
    p = torch.full_like(r, _POLYNOMIAL[0])
    for c in (*_POLYNOMIAL[1:], 1.0):
        p = p * r + torch.tensor(c)
    return torch.where(t < -125.0, 0.0, torch.ldexp(p, n))
