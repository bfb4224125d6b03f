"""Gradients through the weight quantiser: three straight-through estimators with one interface.

With codes c = Q(W / alpha), z = W / alpha, s = mean|W| / alpha of a scale's start (`scales_per_mean`, 1 but of several
planes), m = 2^(k-1) of k planes and lam, t the hardness (a 0-dim tensor that a schedule moves):

    identity   W_eff = (1 - lam) W + lam alpha c          dW = dW_eff                       lam in [0, 1], 1 = hard
    clipped    the same value                             dW = dW_eff (1 - lam + lam 1[|z| <= clip s])
    tanh       W_eff = alpha f_t(z)                       dW = dW_eff f_t'(z)                     t in 0.3 .. 100
               t >= 100: W_eff = alpha c                  dW = dW_eff 1[|z| <= clip s]

    binary     f_t(z) = tanh(t z) / tanh(t)
    k planes   f_t(z) = (2 m - 1) sum_j tanh(t (z - 2 j)) / sum_j tanh(t (2 m - 1 - 2 j))       j = 1 - m .. m - 1
    ternary    f_t(z) = (tanh(t (z - 1/2)) + tanh(t (z + 1/2))) / (tanh(t / 2) + tanh(3 t / 2))

All f_t tend to z for small t, pass through the largest code, and tend to the codes for large t; their derivative is
exact. The binary one is BinaryLLM (arXiv 2508.06974, section 3); the staircases are ours, their steps at the thresholds
between codes. Clipping follows ParetoQ (arXiv 2502.02631), lambda the Hugging Face 1.58-bit fine-tuning notes.

alpha inside z is a constant for the gradient, and never 0 (`weight.divisor`). A learnable alpha gets the LSQ-scaled
gradient (arXiv 1902.08153) `sum over its tensor, row or group of dW_eff * dW_eff/dalpha / sqrt(numel(W))`, where
dW_eff/dalpha is the code (times lam), or f_t(z) in the soft phase. Nothing of size N x K is kept for the backward but
the latent weight itself. On the CPU values and gradients are computed some rows at a time, so that what lies between
them stays in the cache; within `torch.compile`, which joins the passes, all at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from bitnet_train.errors import ConfigError
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.traced import is_traced
from bitnet_train.quant.weight import divisor, expand_scale, float_codes, row_blocks

_BLOCK_WEIGHTS = 1 << 19  # at a time: several float32 intermediates of 2 MiB stay in the last cache


@dataclass(frozen=True)
class Surrogate(ABC):
    """A frozen strategy: the value of the effective weight and its two gradients."""

    name: ClassVar[str]
    hard: ClassVar[float]
    """The hardness at which the effective weight is exactly scale * codes."""

    def weight(
        self,
        latent_NK: Tensor,
        scale: Tensor,
        scheme: WeightScheme,
        hardness: Tensor,
        *,
        numel: int | None = None,
    ) -> Tensor:
        """Effective weight, float32 [N, K], differentiable in `latent_NK` (float32) and `scale` (of scale_shape).

        `hardness` is a 0-dim float32 tensor; it is never read back to the host. `numel` is the size of the whole
        weight, for the gradient of a scale, when `latent_NK` is only some rows of it.
        """
        result = _EffectiveWeight.apply(latent_NK, scale, hardness, self, scheme, numel or latent_NK.numel())
        assert isinstance(result, Tensor)
        return result

    @torch.no_grad()
    def effective(
        self, latent_NK: Tensor, scale: Tensor, scheme: WeightScheme, hardness: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """The same value in `dtype` [N, K], without a gradient: W_eff in float32, rounded once."""
        if is_traced(latent_NK):
            return self.value(latent_NK, expand_scale(scale, *latent_NK.shape), scheme, hardness).to(dtype)
        result = torch.empty(latent_NK.shape, dtype=dtype, device=latent_NK.device)
        for rows, w_NK, some_scale in _in_blocks(latent_NK, scale):
            result[rows] = self.value(w_NK, some_scale, scheme, hardness)
        return result

    @torch.no_grad()
    def gradients(
        self,
        grad_NK: Tensor,
        latent_NK: Tensor,
        scale: Tensor,
        scheme: WeightScheme,
        hardness: Tensor,
        *,
        numel: int,
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """(d_latent float32 [N, K], d_scale float32 of scale_shape) of dW_eff [N, K], None where not `wanted`."""
        if is_traced(latent_NK):
            by_latent, by_scale = self.slopes(latent_NK, expand_scale(scale, *latent_NK.shape), scheme, hardness)
            grad = grad_NK.to(latent_NK.dtype)
            found = _sum_to(grad * by_scale, scale.shape).to(latent_NK.dtype) / numel**0.5 if wanted[1] else None
            return grad * by_latent if wanted[0] else None, found
        d_latent = torch.empty(latent_NK.shape, dtype=latent_NK.dtype, device=latent_NK.device) if wanted[0] else None
        sums: list[Tensor] = []
        for rows, w_NK, some_scale in _in_blocks(latent_NK, scale):
            grad = grad_NK[rows].to(latent_NK.dtype)
            by_latent, by_scale = self.slopes(w_NK, some_scale, scheme, hardness)
            if d_latent is not None:
                torch.mul(grad, by_latent, out=d_latent[rows])
            if wanted[1]:
                sums.append(_sum_to(grad * by_scale, scale.shape))
        return d_latent, _joined(sums, scale.shape) / numel**0.5 if wanted[1] else None

    def is_hard(self, hardness: float) -> bool:
        """Whether the effective weight is exactly scale * codes."""
        return hardness >= self.hard

    @property
    @abstractmethod
    def hard_clip(self) -> float | None:
        """The clip of the gradient once hard, in mean magnitudes; None where it passes unchanged."""

    @abstractmethod
    def value(self, w_NK: Tensor, scale: Tensor, scheme: WeightScheme, hardness: Tensor) -> Tensor:
        """W_eff, for a scale that broadcasts to [N, K]."""

    @abstractmethod
    def slopes(self, w_NK: Tensor, scale: Tensor, scheme: WeightScheme, hardness: Tensor) -> tuple[Tensor, Tensor]:
        """Element-wise (dW_eff/dW, dW_eff/dalpha), each broadcastable to [N, K]."""

    def to_dict(self) -> dict[str, Any]:
        """Name and fields as plain values, ready for JSON."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class Identity(Surrogate):
    """The gradient passes unchanged."""

    name: ClassVar[str] = "identity"
    hard: ClassVar[float] = 1.0

    def value(self, w_NK: Tensor, scale: Tensor, scheme: WeightScheme, hardness: Tensor) -> Tensor:
        """Blend of latent and quantised weight."""
        return torch.lerp(w_NK, float_codes(w_NK, scale, scheme) * scale, hardness)

    def slopes(self, w_NK: Tensor, scale: Tensor, scheme: WeightScheme, hardness: Tensor) -> tuple[Tensor, Tensor]:
        """One; and lam * codes."""
        return torch.ones_like(hardness), hardness * float_codes(w_NK, scale, scheme)

    @property
    def hard_clip(self) -> None:
        """Nothing is clipped."""


@dataclass(frozen=True)
class Clipped(Surrogate):
    """The gradient passes only where |z| <= clip s."""

    clip: float = 1.0

    name: ClassVar[str] = "clipped"
    hard: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        _require_positive_clip(self.clip)

    def value(self, w_NK: Tensor, scale: Tensor, scheme: WeightScheme, hardness: Tensor) -> Tensor:
        """Blend of latent and quantised weight."""
        return torch.lerp(w_NK, float_codes(w_NK, scale, scheme) * scale, hardness)

    def slopes(self, w_NK: Tensor, scale: Tensor, scheme: WeightScheme, hardness: Tensor) -> tuple[Tensor, Tensor]:
        """Blend of one and the mask; and lam * codes."""
        inside = (w_NK.abs() <= self.clip * scheme.scales_per_mean * scale).to(w_NK.dtype)
        return 1 - hardness + hardness * inside, hardness * float_codes(w_NK, scale, scheme)

    @property
    def hard_clip(self) -> float:
        """The clip of z."""
        return self.clip


@dataclass(frozen=True)
class Tanh(Surrogate):
    """A smooth step that sharpens with t and becomes the hard codes with a clipped gradient at t >= 100."""

    clip: float = 1.0

    name: ClassVar[str] = "tanh"
    hard: ClassVar[float] = 100.0

    def __post_init__(self) -> None:
        _require_positive_clip(self.clip)

    def value(self, w_NK: Tensor, scale: Tensor, scheme: WeightScheme, hardness: Tensor) -> Tensor:
        """Scale times f_t(z), or times the codes once hard."""
        soft, _ = _soft_step(w_NK / divisor(scale), scheme, hardness)
        return torch.where(hardness >= self.hard, float_codes(w_NK, scale, scheme), soft) * scale

    def slopes(self, w_NK: Tensor, scale: Tensor, scheme: WeightScheme, hardness: Tensor) -> tuple[Tensor, Tensor]:
        """The exact derivative of f_t and f_t itself; the mask and the codes once hard."""
        z = w_NK / divisor(scale)
        soft, slope = _soft_step(z, scheme, hardness)
        is_hard = hardness >= self.hard
        inside = (w_NK.abs() <= self.clip * scheme.scales_per_mean * scale).to(z.dtype)
        return torch.where(is_hard, inside, slope), torch.where(is_hard, float_codes(w_NK, scale, scheme), soft)

    @property
    def hard_clip(self) -> float:
        """The clip of z."""
        return self.clip


SURROGATES: dict[str, type[Surrogate]] = {cls.name: cls for cls in (Identity, Clipped, Tanh)}
"""Every estimator by name."""


def surrogate_from_dict(data: dict[str, Any]) -> Surrogate:
    """Inverse of `Surrogate.to_dict`. Raises ConfigError on an unknown name or field."""
    values = dict(data)
    name = values.pop("name", None)
    if name not in SURROGATES:
        raise ConfigError(f"`surrogate.name={name}` is not a known estimator. Allowed: {', '.join(SURROGATES)}.")
    cls = SURROGATES[name]
    allowed = [field.name for field in fields(cls)]
    unknown = sorted(set(values) - set(allowed))
    if unknown:
        raise ConfigError(f"`surrogate` {name} has unknown keys {unknown}. Allowed: {', '.join(allowed) or 'none'}.")
    return cls(**values)


class _EffectiveWeight(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        latent: Tensor,
        scale: Tensor,
        hardness: Tensor,
        surrogate: Surrogate,
        scheme: WeightScheme,
        numel: int,
    ) -> Tensor:
        ctx.save_for_backward(latent, scale, hardness)
        ctx.surrogate, ctx.scheme, ctx.numel = surrogate, scheme, numel
        return surrogate.effective(latent, scale, scheme, hardness, latent.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        latent, scale, hardness = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        surrogate: Surrogate = ctx.surrogate
        d_latent, d_scale = surrogate.gradients(
            grad_outputs[0], latent, scale, ctx.scheme, hardness, numel=ctx.numel, wanted=wanted
        )
        return d_latent, d_scale, None, None, None, None


def _in_blocks(latent_NK: Tensor, scale: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield (rows, latents of them, their scales broadcastable to those)."""
    for rows in row_blocks(latent_NK, _BLOCK_WEIGHTS):
        some = latent_NK[rows]
        yield rows, some, expand_scale(scale if scale.shape == (1, 1) else scale[rows], *some.shape)


def _sum_to(value_NK: Tensor, shape: torch.Size) -> Tensor:
    """The sum of each row's groups; of everything, in float64, for one scale."""
    if shape == (1, 1):
        return value_NK.sum(dtype=torch.float64).reshape(1, 1)
    return value_NK.reshape(len(value_NK), shape[1], -1).sum(dim=-1)


def _joined(sums: list[Tensor], shape: torch.Size) -> Tensor:
    return torch.cat(sums).sum(dim=0, keepdim=True).float() if shape == (1, 1) else torch.cat(sums)


def _soft_step(z: Tensor, scheme: WeightScheme, t: Tensor) -> tuple[Tensor, Tensor]:
    """f_t(z) and its derivative."""
    if not scheme.has_zero:
        return _steps_at_even_numbers(z, scheme.num_magnitudes, t)
    lower, upper = torch.tanh(t * (z - 0.5)), torch.tanh(t * (z + 0.5))
    height = torch.tanh(0.5 * t) + torch.tanh(1.5 * t)
    return (lower + upper) / height, t * (2 - lower * lower - upper * upper) / height


def _steps_at_even_numbers(z: Tensor, num_magnitudes: int, t: Tensor) -> tuple[Tensor, Tensor]:
    """f_t and its derivative where codes are odd integers."""
    steps = range(1 - num_magnitudes, num_magnitudes)
    largest = 2 * num_magnitudes - 1
    height = torch.stack([torch.tanh(t * (largest - 2 * step)) for step in steps]).sum() / largest
    value, slope = torch.zeros_like(z), torch.zeros_like(z)
    for step in steps:
        part = torch.tanh(t * (z - 2 * step))
        value += part
        slope += 1 - part * part
    return value / height, t * slope / height


def _require_positive_clip(clip: float) -> None:
    if not clip > 0:
        raise ConfigError(f"`surrogate.clip={clip}` must be above 0; ParetoQ uses 1, up to 3 is usual.")
