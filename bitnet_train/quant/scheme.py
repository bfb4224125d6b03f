"""Which numbers a tensor may take: two small frozen descriptions and the tables that tests run over.

    weights       w_NK ~ scale * codes       binary {-1, +1}, ternary {-1, 0, +1}
    activations   x_TK ~ scale * codes       int8 or int4 per token, sign (1 bit) per token, none (float)

A weight scale covers the whole tensor, one output row, or one group of `group_size` inputs of a row. It is kept as
float32 but rounded to `scale_dtype` inside the training forward, so that a target which stores fp16 loses nothing.

Shapes in this package: T tokens, N outputs, K inputs, G scale groups per row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.settings import require_allowed, setting

if TYPE_CHECKING:
    import torch

WeightName = Literal["binary", "ternary"]
Granularity = Literal["tensor", "row", "group"]
ActivationName = Literal["int8", "int4", "sign", "none"]
ScaleDtype = Literal["float16", "float32"]
LayerKind = Literal["linear", "embedding"]


def _build(cls: type, key: str, data: Mapping[str, Any]) -> Any:
    unknown = sorted(set(data) - set(cls.__dataclass_fields__))
    if unknown:
        raise ConfigError(f"`{key}` has unknown keys {unknown}. Allowed: {', '.join(cls.__dataclass_fields__)}.")
    return cls(**data)


@dataclass(frozen=True)
class WeightScheme:
    """How a weight matrix is written as scale times codes."""

    name: WeightName = setting("binary", "codes: binary = +-1, ternary = -1, 0, +1")
    granularity: Granularity = setting("row", "one scale per ...")
    group_size: int = setting(128, "inputs per scale, read when granularity is `group`", at_least=1)
    """Must divide K."""
    learnable_scale: bool = setting(False, "train the scales instead of taking the mean magnitude of the latents")
    """A trained parameter that starts at mean|W| of the latent weight, which a fixed scale is."""
    scale_dtype: ScaleDtype = setting("float16", "type the scales are rounded to, in training too")

    def __post_init__(self) -> None:
        require_allowed(self, "weight")

    @property
    def torch_scale_dtype(self) -> torch.dtype:
        """`scale_dtype` as a torch dtype; only this needs torch, so that artefacts are described without it."""
        import torch

        return {"float16": torch.float16, "float32": torch.float32}[self.scale_dtype]

    @property
    def has_zero(self) -> bool:
        """Whether 0 is a code: it is none of binary weights, and one of ternary. What depends on codes asks here.

        Raises ConversionError for any other scheme, which has an arithmetic of its own.
        """
        if self.name == "binary":
            return False
        if self.name == "ternary":
            return True
        raise self._without_arithmetic("name")

    def inputs_per_scale(self, num_inputs: int) -> int:
        """Number of inputs of a row under one scale: `group_size` for groups, else K."""
        if self.granularity == "group":
            return self.group_size
        if self.granularity in ("tensor", "row"):
            return num_inputs
        raise self._without_arithmetic("granularity")

    def scale_shape(self, num_outputs: int, num_inputs: int) -> tuple[int, int]:
        """Shape of the scale of a [N, K] weight: (1, 1), (N, 1) or (N, K // group_size).

        Raises ConversionError when `group_size` does not divide K.
        """
        if self.granularity == "tensor":
            return (1, 1)
        if self.granularity == "row":
            return (num_outputs, 1)
        if self.granularity != "group":
            raise self._without_arithmetic("granularity")
        if num_inputs % self.group_size:
            divisors = [d for d in range(2, num_inputs + 1) if num_inputs % d == 0]
            raise ConversionError(
                f"`weight.group_size={self.group_size}` does not divide the {num_inputs} inputs of a "
                f"{num_outputs} x {num_inputs} weight. Sizes that do: {', '.join(map(str, divisors))}. "
                "Set one of them, or `weight.granularity=row`."
            )
        return (num_outputs, num_inputs // self.group_size)

    def describe(self) -> str:
        """In a few words, for `print(model)`: `binary per row`, `ternary per group 128`."""
        return f"{self.name} per {self.granularity}" + (f" {self.group_size}" if self.granularity == "group" else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WeightScheme:
        """Inverse of `to_dict`. Raises ConfigError on unknown keys or values."""
        return _build(cls, "weight", data)

    def _without_arithmetic(self, key: str) -> ConversionError:
        return ConversionError(
            f"`weight.{key}={getattr(self, key)}` has no arithmetic yet. Give it its codes where `quant/scheme.py` and "
            "`quant/weight.py` tell the others apart."
        )


@dataclass(frozen=True)
class ActivationScheme:
    """How the input of a 1-bit layer is written as scale times codes, one scale per token."""

    name: ActivationName = setting("int8", "int8 or int4 per token, sign = 1 bit per token, none = float")
    """int8: codes -128..127. int4: codes -8..7. sign: codes -1, +1. none: the input stays float."""

    def __post_init__(self) -> None:
        require_allowed(self, "activation")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ActivationScheme:
        """Inverse of `to_dict`. Raises ConfigError on unknown keys or values."""
        return _build(cls, "activation", data)


WEIGHT_SCHEMES: tuple[WeightName, ...] = get_args(WeightName)
"""Every weight scheme name; a new one is tested as soon as it is listed."""
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)
"""Everything one weight scale may cover."""
ACTIVATION_SCHEMES: tuple[ActivationName, ...] = get_args(ActivationName)
"""Every activation scheme name."""
