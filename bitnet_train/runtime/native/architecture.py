"""What `config.json` says about a model, in the numbers that the native runtime computes with.

Read without transformers, whose classes fill in defaults that differ from version to version: a number that the file
does not state is not guessed, the folder then does not fit. Which numbers a model has, and what they are for, is a row
of `families`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bitnet_train.errors import FormatError
from bitnet_train.runtime.native.config_numbers import LARGEST_SIZE, NotNative, list_of, positive, size
from bitnet_train.runtime.native.families import ACTIVATIONS, FAMILIES, Family
from bitnet_train.runtime.native.rotary import Rope, read_rope

__all__ = ["Architecture", "Layer", "NotNative", "Sizes", "read_architecture"]

NO_ROPE = -1
_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Sizes:
    """Widths and counts of one model."""

    hidden: int
    ff: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int

    @property
    def q(self) -> int:
        """Numbers of all queries of a token."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Numbers of all keys, or values, of a token."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Layer:
    """How a layer attends: the index of its rotary positions (-1: none), and its window (0: all before a token)."""

    rope: int = 0
    window: int = 0


@dataclass(frozen=True)
class Architecture:
    """One model: its family, sizes and constants; `pattern` is one entry for all layers, or one for each.

    `sizes.max_positions` are those that are computed here, `stated_positions` what the model says of itself.
    """

    family: Family
    sizes: Sizes
    stated_positions: int
    ropes: tuple[Rope, ...]
    pattern: tuple[Layer, ...]
    rms_eps: float
    gate: str
    attention_scale: float
    attention_soft_cap: float = 0.0
    logit_soft_cap: float = 0.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_divisor: float = 1.0

    @property
    def layers(self) -> tuple[Layer, ...]:
        """How each layer attends."""
        return self.pattern * self.sizes.layers if len(self.pattern) == 1 else self.pattern


def read_architecture(config: Mapping[str, Any], model_class: str) -> Architecture:
    """Return the architecture that `config` (the object in config.json) describes.

    Raises
    ------
    NotNative
        When it is a model that only the Hugging Face path computes.
    FormatError
        When the numbers contradict each other or describe no model.
    """
    if model_class not in FAMILIES:
        raise NotNative(f"{model_class} is not one of {', '.join(FAMILIES)}")
    family = FAMILIES[model_class]
    if config.get("model_type") != family.model_type:
        raise FormatError(
            f"config.json says `model_type` {str(config.get('model_type'))[:40]!r}, the manifest {model_class}. "
            "Files of two folders were mixed: copy the folder again."
        )
    activation = str(config.get(family.activation))
    if activation not in ACTIVATIONS:
        raise NotNative(f"its activation function is {activation[:40]!r}, not one of {', '.join(ACTIVATIONS)}")
    if config.get("use_bidirectional_attention"):
        raise NotNative("its tokens see what comes after them (`use_bidirectional_attention`)")
    return _architecture(config, family, ACTIVATIONS[activation])


def _architecture(config: Mapping[str, Any], family: Family, gate: str) -> Architecture:
    sizes = _sizes(config, family)
    types = _layer_types(config, family, sizes.layers)
    kinds = sorted(set(types)) if family.rope_per_type else [""]
    ropes = tuple(read_rope(config, sizes.head_dim, kind, is_partial=family.partial_rope) for kind in kinds)
    return Architecture(
        family=family,
        sizes=replace(sizes, max_positions=min(rope.most_tokens or sizes.max_positions for rope in ropes)),
        stated_positions=sizes.max_positions,
        ropes=ropes,
        pattern=_pattern(config, family, types, kinds, sizes.layers),
        rms_eps=positive(config, "rms_norm_eps"),
        gate=gate,
        attention_scale=_attention_scale(config, family, sizes.head_dim),
        attention_soft_cap=_soft_cap(config, "attn_logit_softcapping", family.attention_soft_cap),
        logit_soft_cap=_soft_cap(config, "final_logit_softcapping", family.logit_soft_cap),
        **_multipliers(config, family),
    )


def _sizes(config: Mapping[str, Any], family: Family) -> Sizes:
    heads, hidden = size(config, "num_attention_heads"), size(config, "hidden_size")
    divides = hidden % heads == 0 and not family.states_head_dim
    return _checked(
        Sizes(
            hidden=hidden,
            ff=size(config, "intermediate_size"),
            layers=size(config, "num_hidden_layers"),
            heads=heads,
            kv_heads=size(config, "num_key_value_heads"),
            head_dim=size(config, "head_dim", hidden // heads if divides else None),
            vocab=size(config, "vocab_size"),
            max_positions=size(config, "max_position_embeddings"),
        )
    )


def _checked(sizes: Sizes) -> Sizes:
    if sizes.heads % sizes.kv_heads:
        raise FormatError(
            f"config.json: `num_key_value_heads={sizes.kv_heads}` does not divide `num_attention_heads={sizes.heads}`."
        )
    if sizes.head_dim % 2:
        raise FormatError(f"config.json: `head_dim={sizes.head_dim}` must be even, for pairs are rotated.")
    if max(sizes.q + 2 * sizes.kv, 2 * sizes.ff) > LARGEST_SIZE:
        raise FormatError(f"config.json: {sizes.heads} heads of {sizes.head_dim} and {sizes.ff} are too large.")
    return sizes


def _layer_types(config: Mapping[str, Any], family: Family, layers: int) -> list[str]:
    """Return the type of each layer, or one type for all of them."""
    types = list_of(config, "layer_types", layers)
    if types is None and family.rope_per_type:
        raise NotNative("config.json does not state `layer_types`")
    if types is None and family.windows == "layers":
        if config.get("sliding_window") is not None and config.get("use_sliding_window", True):
            raise NotNative("only some of its layers have a sliding window, and `layer_types` does not say which")
        return [_FULL]
    known = (_FULL, _SLIDING) if family.windows == "layers" else (_FULL,)
    strange = [kind for kind in types or () if kind not in known]
    if strange:
        raise NotNative(f"its layers attend in different ways (`layer_types`: {str(strange[0])[:40]!r})")
    return types or [_FULL]


def _pattern(
    config: Mapping[str, Any], family: Family, types: list[str], kinds: list[str], layers: int
) -> tuple[Layer, ...]:
    windows = {_FULL: 0, _SLIDING: 0}
    if family.windows == "all" and config.get("sliding_window") is not None:
        windows[_FULL] = size(config, "sliding_window")
    if _SLIDING in types and config.get("use_sliding_window", True):
        windows[_SLIDING] = size(config, "sliding_window")
    ropes = [kinds.index(kind) if family.rope_per_type else 0 for kind in types]
    skips = list_of(config, "no_rope_layers", layers) if family.rope_skips else None
    if skips is not None:
        types = types * layers if len(types) == 1 else types
        ropes = [0 if used else NO_ROPE for used in skips]
    return tuple(Layer(rope, windows[kind]) for rope, kind in zip(ropes, types, strict=True))


def _attention_scale(config: Mapping[str, Any], family: Family, head_dim: int) -> float:
    if not family.attention_scale:
        return head_dim**-0.5
    return positive(config, family.attention_scale) ** family.attention_scale_power


def _soft_cap(config: Mapping[str, Any], name: str, is_applied: bool) -> float:
    """Return a cap, 0 for none."""
    if config.get(name) is None:
        return 0.0
    if not is_applied:
        raise NotNative(f"it states `{name}`, which transformers does not apply to models of its class")
    return positive(config, name)


def _multipliers(config: Mapping[str, Any], family: Family) -> dict[str, float]:
    if not family.multipliers:
        return {}
    return {
        "embedding_scale": positive(config, "embedding_multiplier"),
        "residual_scale": positive(config, "residual_multiplier"),
        "logit_divisor": positive(config, "logits_scaling"),
    }
