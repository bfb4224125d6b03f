"""Which numbers a tensor may take: two small frozen descriptions and the tables that tests run over.

    weights       w_NK ~ scale * codes       binary {-1, +1}, ternary {-1, 0, +1}
                                             binary of k planes: the odd integers -(2^k - 1) .. 2^k - 1
    activations   x_TK ~ scale * codes       int8 or int4 per token, sign (1 bit) per token, none (float)

A weight scale covers the whole tensor, one output row, or one group of `group_size` inputs of a row. It is kept as
float32 but rounded to `scale_dtype` inside the training forward, so that a target which stores fp16 loses nothing.

Shapes in this package: T tokens, N outputs, K inputs, G scale groups per row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import pi
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.settings import require_allowed, setting

if TYPE_CHECKING:
    import torch

WeightName = Literal["binary", "ternary"]
Granularity = Literal["tensor", "row", "group"]
TableType = Literal["int8", "int5", "int4"]
TABLE_BITS: Mapping[TableType, int] = MappingProxyType({"int8": 8, "int5": 5, "int4": 4})
"""Bits a weight of an embedding or a head that is a table (`quant.table`)."""

ActivationName = Literal["int8", "int4", "sign", "none"]
ScaleDtype = Literal["float16", "float32"]
LayerKind = Literal["linear", "embedding"]
CodeSet = Literal["binary", "2-plane", "3-plane", "4-plane", "ternary"]


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
    planes: int = setting(
        1,
        "bit planes of a binary weight: 1 = +-1; 2 = -3, -1, 1, 3; 3 = the odd numbers -7 .. 7; 4 = -15 .. 15",
        at_least=1,
        at_most=4,
    )

    def __post_init__(self) -> None:
        require_allowed(self, "weight")
        if self.planes != 1 and self.name != "binary":
            raise ConfigError(
                f"`weight.planes={self.planes}` needs `weight.name=binary`: {self.name} weights have one set of codes. "
                "Set `weight.name=binary`, or `weight.planes=1`."
            )

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

    @property
    def code_set(self) -> CodeSet:
        """What the codes are called, a key of `CODES`; what stores or multiplies codes, and no scheme, asks here."""
        return "ternary" if self.has_zero else _OF_PLANES[self.planes]

    @property
    def num_magnitudes(self) -> int:
        """How many numbers |code| can be but 0: 2^(k - 1) of k planes, which is also the factor of the last of them."""
        return 1 if self.has_zero else 2 ** (self.planes - 1)

    @property
    def scales_per_mean(self) -> float:
        """What mean|w| is divided by to make a scale: 1, or of several planes what fits normal weights best.

        Equal steps lose least at 0.9957 deviations of the weight with 4 codes, at 0.5860 with 8 and at 0.3352 with 16
        (Max 1960, table II), two scales each, and the mean magnitude is sqrt(2 / pi) deviations. A scale of
        mean|w| / 2^(k-1) would cut the large weights off: twice the error at 3 planes.
        """
        return 1.0 if self.has_zero else _SCALES_PER_MEAN[self.planes]

    @property
    def num_planes(self) -> int:
        """How many bits a code is stored in: the planes of a binary weight, two of a ternary one."""
        return 2 if self.has_zero else self.planes

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
        """In a few words, for `print(model)`: `binary per row`, `binary of 2 planes per group 128`."""
        size = f" {self.group_size}" if self.granularity == "group" else ""
        return f"{self.title} per {self.granularity}{size}"

    @property
    def title(self) -> str:
        """The codes for people: `binary`, `binary of 2 planes`, `ternary`."""
        return self.name if self.planes == 1 else f"{self.name} of {self.planes} planes"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; one plane goes without saying, as in files of before there were more."""
        values = asdict(self)
        if self.planes == 1:
            del values["planes"]
        return values

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


_OF_PLANES: Mapping[int, CodeSet] = MappingProxyType({1: "binary", 2: "2-plane", 3: "3-plane", 4: "4-plane"})
_BEST_STEPS = {2: 0.9957, 3: 0.5860, 4: 0.3352}
_SCALES_PER_MEAN = {planes: 2 * (2 / pi) ** 0.5 / step for planes, step in _BEST_STEPS.items()} | {1: 1.0}
CODES: Mapping[CodeSet, tuple[int, ...]] = MappingProxyType(
    {**{name: tuple(range(1 - 2**planes, 2**planes, 2)) for planes, name in _OF_PLANES.items()}, "ternary": (-1, 0, 1)}
)
"""Every set of codes a weight can have, in order."""
WEIGHT_SCHEMES: tuple[WeightName, ...] = get_args(WeightName)
"""Every weight scheme name; a new one is tested as soon as it is listed."""
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)
"""Everything one weight scale may cover."""
ACTIVATION_SCHEMES: tuple[ActivationName, ...] = get_args(ActivationName)
"""Every activation scheme name."""
