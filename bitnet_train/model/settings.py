"""Settings of what becomes 1-bit and of what trains: `model`, `weight`, `adapter`. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.model.patterns import ROLES
from bitnet_train.quant.scheme import TableType, WeightScheme
from bitnet_train.settings import REQUIRED, part_of, require_allowed, setting

Estimator = Literal["identity", "clipped", "tanh"]
AdapterKind = Literal["lora_inside", "lora_outside", "scales_only", "none"]


@dataclass(frozen=True)
class Selection:
    """What to convert; the default is every attention and mlp linear of the decoder blocks."""

    include: tuple[str, ...] = setting((), "layer name patterns to convert; empty = every layer of `model.roles`")
    exclude: tuple[str, ...] = setting((), "layer name patterns to keep in full precision")
    roles: tuple[str, ...] = setting(("attention", "mlp"), "roles to convert", choices=ROLES)

    def __post_init__(self) -> None:
        require_allowed(self, "model")
        if not self.roles:
            raise ConfigError(f"`model.roles=[]` must be some of: {', '.join(ROLES)}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {key: list(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Selection:
        """Inverse of `to_dict`."""
        return cls(**{key: tuple(value) for key, value in data.items()})


@dataclass(frozen=True)
class _Source:
    source: str = setting(
        REQUIRED,
        "`tiny` (bundled), local directory, *.gguf file (with `bitnet-train[gguf]`), or hub id",
        path=True,
        model=True,
    )


@dataclass(frozen=True)
class ModelConfig(Selection, _Source):  # fields of the last come first
    """Which model, and which of its layers become 1-bit."""

    @property
    def selection(self) -> Selection:
        """Which layers, alone."""
        return part_of(Selection, self)


@dataclass(frozen=True)
class WeightConfig(WeightScheme):
    """How a weight becomes codes and scales, and how gradients pass through."""

    estimator: Estimator = setting("identity", "straight-through estimator")
    clip: float = setting(1.0, "where the clipped and the tanh estimator stop gradients, in mean magnitudes", above=0)
    overrides: tuple[dict[str, Any], ...] = setting(
        (),
        "layers that differ: [{pattern: down_proj, name: ternary}, {role: head, keep: true}]; an entry names a "
        "pattern or a role, then keys above, or `keep` = stays float; of entries that fit, the last decides",
    )
    budget_mb: float | None = setting(
        None,
        "megabytes that the packed model may take: layers that `overrides` does not name get 1 to 4 planes each, by "
        "trials before training; null = `planes` everywhere",
        above=0,
    )
    tables: Literal[TableType, "exact"] = setting(
        "int8",
        "what is not 1-bit, in training too: int8, int5, int4 = embedding and head in so many bits with a scale a row, "
        "norms and biases bfloat16; exact = float32",
    )
    input_scale: bool = setting(
        False, "train a scale per input too, as OneBit: to measure with, it cannot be merged or packed"
    )
    sub_norm: bool = setting(
        False, "an RMSNorm before output projections, its gain measured: to measure with, it cannot be packed"
    )

    @property
    def scheme(self) -> WeightScheme:
        """How a weight is written, alone: what records and packed folders hold."""
        return part_of(WeightScheme, self)


@dataclass(frozen=True)
class AdapterConfig:
    """What trains: low-rank factors, scales, or every latent."""

    kind: AdapterKind = setting(
        "lora_inside", "lora_inside = Q(W + sBA), lora_outside = Q(W)x + sBAx, scales_only, none = all latents train"
    )
    rank: int = setting(64, "rank of the low-rank factors", at_least=1)
    alpha: float = setting(128.0, "numerator of the LoRA scale", at_least=0)
    rslora: bool = setting(True, "scale by alpha / sqrt(rank) instead of alpha / rank")
    dropout: float = setting(0.0, "dropout probability before A; only outside the quantiser", at_least=0, below=1)
    train_norms: bool = setting(True, "train the norms too")
    train_bias: bool = setting(True, "train the biases of converted layers too")
    train_embeddings: bool = setting(False, "train the input embedding and the head too")
    latent_shrink: float = setting(
        1.0,
        "lora_inside: factor on the latents; their scales stay, so that sBA flips signs",
        above=0,
        at_most=1,
    )
    equal_latents: bool = setting(False, "lora_inside: latents start as sign times scale, before `latent_shrink`")

    def __post_init__(self) -> None:
        require_allowed(self, "adapter")
        if self.dropout and self.kind == "lora_inside":
            raise ConversionError(
                f"`adapter.dropout={self.dropout}` cannot act with `adapter.kind=lora_inside`: B A is added to the "
                "weight before quantising, so there is no separate input to drop. Set `adapter.dropout=0`, or use "
                "`adapter.kind=lora_outside`."
            )
        if self.moves_latents and self.kind != "lora_inside":
            raise ConfigError(
                f"`adapter.latent_shrink={self.latent_shrink}` and `adapter.equal_latents={self.equal_latents}` make "
                f"room for B A inside the quantiser, and `adapter.kind={self.kind}` has none there. Leave them at 1 "
                "and false, or set `adapter.kind=lora_inside`."
            )

    @property
    def moves_latents(self) -> bool:
        """Whether latents are rewritten before the adapter is attached."""
        return self.latent_shrink != 1 or self.equal_latents
