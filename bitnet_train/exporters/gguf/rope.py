"""Rotary positions: what a Hugging Face config says of them, as llama.cpp is told.

    default         `rope.freq_base` alone
    dynamic         the same: it changes only beyond the context length, which the file states
    linear          `rope.scaling.type` linear and its factor
    yarn            its factor, the original context length, and the bounds of the ramp
    llama3          no key: the tensor `rope_freqs.weight`, float32 [D / 2], divides the frequencies

Gemma 3 has a base of its own for the layers that slide. Source: transformers' `modeling_rope_utils`, the conversion
scripts and `llm_load_hparams` of llama.cpp. Not written: longrope, whose choice between two sets of factors the two
make at different moments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.container import FileTensor
from bitnet_train.importers.gguf.rope import ROPE_FACTORS, llama3_factors

if TYPE_CHECKING:
    from gguf import GGUFWriter

_KNOWN = ("default", "dynamic", "linear", "yarn", "llama3")


@dataclass(frozen=True)
class Rope:
    """Rotary positions of a model: base, how it is scaled, and the base of sliding layers where that is another one."""

    theta: float
    type: str
    parameters: Mapping[str, Any]
    sliding_theta: float | None = None


def read_rope(config: Mapping[str, Any]) -> Rope:
    """Read the rotary positions of a config. Raises FormatError for a scaling that cannot be written."""
    parameters = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    sliding = parameters.get("sliding_attention")
    if isinstance(sliding, Mapping):
        if sliding.get("rope_type", "default") != "default":
            raise FormatError("`rope_parameters.sliding_attention` is scaled; llama.cpp scales full attention only.")
        parameters = dict(parameters["full_attention"])
    rope_type = str(parameters.get("rope_type") or parameters.get("type") or "default").lower()
    theta = float(parameters.get("rope_theta") or config.get("rope_theta") or 10000.0)
    if rope_type not in _KNOWN:
        raise FormatError(
            f"`rope_parameters.rope_type={rope_type}` cannot be written as GGUF. Known: {', '.join(_KNOWN)}. "
            "Use another `export.format`."
        )
    _check_yarn(rope_type, parameters)
    return Rope(theta, rope_type, parameters, float(sliding["rope_theta"]) if isinstance(sliding, Mapping) else None)


def add_rope(writer: GGUFWriter, rope: Rope) -> None:
    """Write the keys of the rotary positions."""
    import gguf

    writer.add_rope_freq_base(rope.theta)
    if rope.sliding_theta is not None:
        writer.add_rope_freq_base_swa(rope.sliding_theta)
    if rope.type not in ("linear", "yarn"):
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType(rope.type))
    writer.add_rope_scaling_factor(float(rope.parameters["factor"]))
    if rope.type == "yarn":
        writer.add_rope_scaling_orig_ctx_len(int(rope.parameters["original_max_position_embeddings"]))
        if rope.parameters.get("beta_fast") is not None:
            writer.add_rope_scaling_yarn_beta_fast(float(rope.parameters["beta_fast"]))
        if rope.parameters.get("beta_slow") is not None:
            writer.add_rope_scaling_yarn_beta_slow(float(rope.parameters["beta_slow"]))


def rope_tensors(rope: Rope, head_size: int) -> list[FileTensor]:
    """Return the tensor of Llama 3's factors for heads of `head_size` values; nothing for other scalings."""
    if rope.type != "llama3":
        return []
    factors = llama3_factors(rope.theta, head_size, rope.parameters).astype(np.float32)
    return [FileTensor(ROPE_FACTORS, factors.shape, 0, factors.nbytes, lambda: factors, "factors of rotary positions")]


def _check_yarn(rope_type: str, parameters: Mapping[str, Any]) -> None:
    """llama.cpp multiplies attention by 1 + ln(factor) / 10, as transformers does where the config states nothing."""
    if rope_type != "yarn":
        return
    stated = parameters.get("attention_factor")
    usual = 1 + 0.1 * math.log(float(parameters["factor"]))
    other = [key for key in ("mscale", "mscale_all_dim") if parameters.get(key)]
    if other or (stated is not None and abs(float(stated) - usual) > 1e-6):
        raise FormatError(
            f"`rope_parameters.{other[0] if other else 'attention_factor'}` differs from what llama.cpp computes for a "
            f"yarn factor of {parameters['factor']} ({usual:.6g}). Use another `export.format`."
        )
