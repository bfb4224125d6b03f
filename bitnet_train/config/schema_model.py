"""Keys of what becomes 1-bit and what training starts from: model, weight, activation, adapter, init, blockwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bitnet_train.config.schema_key import REQUIRED, key


@dataclass
class ModelConfig:
    """Which model, and which of its layers become 1-bit."""

    source: str = field(
        default=REQUIRED,
        metadata=key(
            "`tiny` (bundled), local directory, *.gguf file (with `bitnet-train[gguf]`), or hub id",
            path=True,
            model=True,
        ),
    )
    include: list[str] = field(
        default_factory=list, metadata=key("layer name patterns to convert; empty = every layer of `model.roles`")
    )
    exclude: list[str] = field(default_factory=list, metadata=key("layer name patterns to keep in full precision"))
    roles: list[str] = field(
        default_factory=lambda: ["attention", "mlp"],
        metadata=key("roles to convert", "attention", "mlp", "head", "embedding"),
    )


@dataclass
class WeightConfig:
    """How a weight becomes codes and scales, and how gradients pass through."""

    name: str = field(default="binary", metadata=key("codes: binary = +-1, ternary = -1, 0, +1", "binary", "ternary"))
    granularity: str = field(default="row", metadata=key("one scale per ...", "tensor", "row", "group"))
    group_size: int = field(default=128, metadata=key("inputs per scale, read when granularity is `group`"))
    learnable_scale: bool = field(
        default=False, metadata=key("train the scales instead of taking the mean magnitude of the latents")
    )
    scale_dtype: str = field(
        default="float16", metadata=key("type the scales are rounded to, in training too", "float16", "float32")
    )
    estimator: str = field(
        default="identity", metadata=key("straight-through estimator", "identity", "clipped", "tanh")
    )
    clip: float = field(default=1.0, metadata=key("where the clipped and the tanh estimator stop gradients, in scales"))
    overrides: list[dict[str, Any]] = field(
        default_factory=list,
        metadata=key(
            "layers that differ: [{pattern: down_proj, name: ternary}, {role: head, keep: true}]; an entry names a "
            "pattern or a role, then keys above, or `keep` = stays float; of entries that fit, the last decides"
        ),
    )
    tables: str = field(
        default="int8",
        metadata=key(
            "what is not 1-bit, in training too: int8 = embedding and head in 8 bits with a scale a row, norms and "
            "biases bfloat16; exact = float32",
            "int8",
            "exact",
        ),
    )
    input_scale: bool = field(
        default=False,
        metadata=key("train a scale per input too, as OneBit: to measure with, it cannot be merged or packed"),
    )
    sub_norm: bool = field(
        default=False,
        metadata=key("an RMSNorm before output projections, its gain measured: to measure with, it cannot be packed"),
    )


@dataclass
class ActivationConfig:
    """How the inputs of a converted layer are quantised."""

    name: str = field(
        default="int8",
        metadata=key("int8 or int4 per token, sign = 1 bit per token, none = float", "int8", "int4", "sign", "none"),
    )


@dataclass
class AdapterConfig:
    """What trains: low-rank factors, scales, or every latent."""

    kind: str = field(
        default="lora_inside",
        metadata=key(
            "lora_inside = Q(W + sBA), lora_outside = Q(W)x + sBAx, scales_only, none = all latents train",
            "lora_inside",
            "lora_outside",
            "scales_only",
            "none",
        ),
    )
    rank: int = field(default=64, metadata=key("rank of the low-rank factors"))
    alpha: float = field(default=128.0, metadata=key("numerator of the LoRA scale"))
    rslora: bool = field(default=True, metadata=key("scale by alpha / sqrt(rank) instead of alpha / rank"))
    dropout: float = field(default=0.0, metadata=key("dropout probability before A; only outside the quantiser"))
    train_norms: bool = field(default=True, metadata=key("train the norms too"))
    train_bias: bool = field(default=True, metadata=key("train the biases of converted layers too"))
    train_embeddings: bool = field(default=False, metadata=key("train the input embedding and the head too"))
    latent_shrink: float = field(
        default=1.0, metadata=key("lora_inside: factor on the latents; their scales stay, so that sBA flips signs")
    )
    equal_latents: bool = field(
        default=False, metadata=key("lora_inside: latents start as sign times scale, before `latent_shrink`")
    )


@dataclass
class InitConfig:
    """What a converted model starts training from, beyond copies of its weights."""

    equalise: bool = field(
        default=False,
        metadata=key("move per-input scales from 1-bit weights into what comes before them; the float model stays"),
    )
    scales: str = field(
        default="absmean", metadata=key("mean magnitude, or least squares on calibration text", "absmean", "als")
    )
    latents: str = field(
        default="copy",
        metadata=key(
            "the weights, or weights whose codes make up for each other's errors (GPTQ)", "copy", "error_feedback"
        ),
    )
    calibration_rows: int = field(default=32, metadata=key("rows of training text that are looked at"))
    damping: float = field(
        default=0.01, metadata=key("error_feedback: damping of the inputs' second moments, in units of their mean")
    )


@dataclass
class BlockwiseConfig:
    """Training each decoder block alone to give what the full-precision block gives, before all train together."""

    enabled: bool = field(default=False, metadata=key("reconstruct blocks before training end to end"))
    steps: int = field(default=100, metadata=key("optimiser steps per block"))
    rows: int = field(default=256, metadata=key("rows of training text"))
    row_tokens: int | None = field(
        default=None, metadata=key("tokens of the pieces these rows are cut into; null = whole rows")
    )
    batch_rows: int = field(default=8, metadata=key("rows per optimiser step"))
    lr: float | None = field(default=None, metadata=key("peak learning rate; null = 0.06 mean|W| of each block"))
    warmup_fraction: float = field(default=0.2, metadata=key("share of the steps in which the rate rises"))
    loss: str = field(
        default="token_mse",
        metadata=key("squared error over mean square: token by token, or of the batch", "token_mse", "mse"),
    )
    fp_inputs: float = field(default=0.0, metadata=key("share of rows a block reads from the full-precision model"))
    random_tokens: float = field(default=0.0, metadata=key("share of tokens replaced by others of the vocabulary"))
    margin: float = field(
        default=0.1, metadata=key("how far latents are moved from where their code changes, in scales; 0 = left there")
    )
    memory_mb: int = field(default=2048, metadata=key("hidden states beyond this many MB lie in a file of the run"))
