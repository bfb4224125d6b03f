"""What llama.cpp calls a model and its tensors, and in which row order it wants them. One row a GGUF architecture.

    names     model.layers.3.self_attn.q_proj.weight  <->  blk.3.attn_q.weight
    rows      of a query or key of the `llama` architecture: Hugging Face rotates the two halves of a head against each
              other, llama.cpp neighbouring rows. Row p of half h of a head of D rows goes to row 2 p + h of that head.
    offset    Gemma's norms multiply by 1 + weight; llama.cpp multiplies by what the file holds, so 1 is added
    biases    llama.cpp refuses a file with a tensor that its architecture has no place for, so the modules that may
              have a bias are listed
    Conv1D    GPT-2 stores its linear weights [K, N]; a GGUF wants [N, K]. Our packed codes are [N, K] already.

Sources: `gguf.get_tensor_name_map` (the tests hold the names here against it), src/models/*.cpp of llama.cpp (which
tensors an architecture loads), its conversion scripts (row order and offset).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from bitnet_train.errors import ConversionError

_BLOCK = re.compile(r"(?<=\.)\d+(?=\.)")
_LEFT_OUT = re.compile(r"(.*\.)?(rotary_emb\..*|inv_freq|embed_scale)")


@dataclass(frozen=True)
class GgufArchitecture:
    """Names and conventions of one GGUF architecture; `{}` in a name stands for the number of the block."""

    name: str
    """`general.architecture`."""
    model_types: tuple[str, ...]
    """Hugging Face's `model_type`s that become it; the first is the one it becomes on the way back."""
    modules: Mapping[str, str]
    """Hugging Face's module names -> llama.cpp's names."""
    biases: frozenset[str]
    """llama.cpp's names of the modules whose bias it loads."""
    rotated_pairs: tuple[str, ...] = ()
    """Last parts of llama.cpp's names of the modules whose rows are reordered."""
    norm_offset: float = 0.0
    """What the file's norm weights have more than Hugging Face's."""
    transposed: tuple[str, ...] = ()
    """Last parts of Hugging Face's module names that store float weights as [K, N]."""

    def to_gguf(self, hf_name: str) -> str | None:
        """Return llama.cpp's name of a tensor (`<module>.weight` or `.bias`); None where it has no such tensor."""
        module, _, leaf = hf_name.rpartition(".")
        block = _BLOCK.search(module)
        stem = self.modules.get(module if block is None else _BLOCK.sub("{}", module, count=1))
        if stem is None or leaf not in ("weight", "bias") or (leaf == "bias" and stem not in self.biases):
            return None
        return f"{stem if block is None else stem.format(block[0])}.{leaf}"

    def to_gguf_bias(self, hf_name: str) -> str | None:
        """Return the name that a GGUF gives a bias of a layer, whether llama.cpp loads it or not; None for no bias."""
        module, _, leaf = hf_name.rpartition(".")
        weight = self.to_gguf(f"{module}.weight") if leaf == "bias" else None
        return weight and f"{weight.removesuffix('.weight')}.bias"

    def to_hf(self, gguf_name: str) -> str | None:
        """Return Hugging Face's name of a tensor; None for one it does not have, such as `rope_freqs.weight`."""
        stem, _, leaf = gguf_name.rpartition(".")
        block = _BLOCK.search(stem)
        wanted = stem if block is None else _BLOCK.sub("{}", stem, count=1)
        if leaf not in ("weight", "bias"):
            return None
        for module, candidate in self.modules.items():
            if candidate == wanted:
                return f"{module if block is None else module.format(block[0])}.{leaf}"
        return None

    def is_left_out(self, hf_name: str) -> bool:
        """Tell whether llama.cpp computes this tensor itself: rotary frequencies, Gemma's scale of embeddings."""
        return _LEFT_OUT.fullmatch(hf_name) is not None

    def is_transposed(self, hf_name: str) -> bool:
        """Tell whether a float tensor of Hugging Face is [K, N] where a GGUF wants [N, K]."""
        parts = hf_name.split(".")
        return parts[-1] == "weight" and parts[-2] in self.transposed

    def offset(self, hf_name: str) -> float:
        """What the file's tensor has more than Hugging Face's: 1 for a norm of Gemma, else 0."""
        return self.norm_offset if hf_name.endswith("norm.weight") else 0.0

    def rows_to_gguf(self, hf_module: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
        """Reorder the rows (codes [N, K], scales [N, G], biases [N], float weights alike) as llama.cpp wants them.

        One row, the scale of a whole tensor, stays. Most modules come back as they are.
        """
        num_heads = self._num_heads(hf_module, config)
        if num_heads == 0 or tensor.shape[0] == 1:
            return tensor
        _require_pairs(hf_module, tensor, num_heads)
        halves = tensor.reshape(num_heads, 2, tensor.shape[0] // num_heads // 2, *tensor.shape[1:])
        return halves.transpose(1, 2).reshape(tensor.shape)

    def rows_from_gguf(self, hf_module: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
        """The inverse of `rows_to_gguf`."""
        num_heads = self._num_heads(hf_module, config)
        if num_heads == 0 or tensor.shape[0] == 1:
            return tensor
        _require_pairs(hf_module, tensor, num_heads)
        pairs = tensor.reshape(num_heads, tensor.shape[0] // num_heads // 2, 2, *tensor.shape[1:])
        return pairs.transpose(1, 2).reshape(tensor.shape)

    def _num_heads(self, hf_module: str, config: Mapping[str, Any]) -> int:
        """Heads of a module whose rows are reordered; 0 for every other module."""
        name = self.to_gguf(f"{hf_module}.weight") or ""
        kind = name.removesuffix(".weight").rpartition(".")[2]
        if kind not in self.rotated_pairs:
            return 0
        num_heads = int(config["num_attention_heads"])
        return num_heads if kind == "attn_q" else int(config.get("num_key_value_heads") or num_heads)


def _require_pairs(hf_module: str, tensor: Tensor, num_heads: int) -> None:
    if tensor.shape[0] % (2 * num_heads):
        raise ConversionError(
            f"{hf_module} has {tensor.shape[0]} rows, which are not {num_heads} heads of an even number of rows. "
            "The config and the weights are not of one model."
        )


def _of(modules: Mapping[str, str], biases: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {"modules": MappingProxyType(dict(modules)), "biases": frozenset(biases), **more}


_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
_HEAD = {"lm_head": "output"}
_ATTENTION = {
    "model.layers.{}.self_attn.q_proj": "blk.{}.attn_q",
    "model.layers.{}.self_attn.k_proj": "blk.{}.attn_k",
    "model.layers.{}.self_attn.v_proj": "blk.{}.attn_v",
    "model.layers.{}.self_attn.o_proj": "blk.{}.attn_output",
}
_MLP = {
    "model.layers.{}.mlp.gate_proj": "blk.{}.ffn_gate",
    "model.layers.{}.mlp.up_proj": "blk.{}.ffn_up",
    "model.layers.{}.mlp.down_proj": "blk.{}.ffn_down",
}
_TWO_NORMS = {
    "model.layers.{}.input_layernorm": "blk.{}.attn_norm",
    "model.layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
}
_FOUR_NORMS = {
    "model.layers.{}.input_layernorm": "blk.{}.attn_norm",
    "model.layers.{}.post_attention_layernorm": "blk.{}.post_attention_norm",
    "model.layers.{}.pre_feedforward_layernorm": "blk.{}.ffn_norm",
    "model.layers.{}.post_feedforward_layernorm": "blk.{}.post_ffw_norm",
}
_HEAD_NORMS = {
    "model.layers.{}.self_attn.q_norm": "blk.{}.attn_q_norm",
    "model.layers.{}.self_attn.k_norm": "blk.{}.attn_k_norm",
}
_PHI3 = {
    "model.layers.{}.self_attn.qkv_proj": "blk.{}.attn_qkv",
    "model.layers.{}.self_attn.o_proj": "blk.{}.attn_output",
    "model.layers.{}.mlp.gate_up_proj": "blk.{}.ffn_up",
    "model.layers.{}.mlp.down_proj": "blk.{}.ffn_down",
}
_PHI2 = {
    "model.embed_tokens": "token_embd",
    "model.final_layernorm": "output_norm",
    "model.layers.{}.input_layernorm": "blk.{}.attn_norm",
    "model.layers.{}.self_attn.q_proj": "blk.{}.attn_q",
    "model.layers.{}.self_attn.k_proj": "blk.{}.attn_k",
    "model.layers.{}.self_attn.v_proj": "blk.{}.attn_v",
    "model.layers.{}.self_attn.dense": "blk.{}.attn_output",
    "model.layers.{}.mlp.fc1": "blk.{}.ffn_up",
    "model.layers.{}.mlp.fc2": "blk.{}.ffn_down",
}
_GPT2 = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "transformer.h.{}.ln_1": "blk.{}.attn_norm",
    "transformer.h.{}.attn.c_attn": "blk.{}.attn_qkv",
    "transformer.h.{}.attn.c_proj": "blk.{}.attn_output",
    "transformer.h.{}.ln_2": "blk.{}.ffn_norm",
    "transformer.h.{}.mlp.c_fc": "blk.{}.ffn_up",
    "transformer.h.{}.mlp.c_proj": "blk.{}.ffn_down",
}
_LLAMA = {**_TOP, **_HEAD, **_ATTENTION, **_MLP, **_TWO_NORMS}
_GEMMA2 = {**_TOP, **_ATTENTION, **_MLP, **_FOUR_NORMS}
_QKV = ("blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v")
_GLU = ("blk.{}.ffn_gate", "blk.{}.ffn_up", "blk.{}.ffn_down")
_GPT2_BIASES = tuple(stem for stem in _GPT2.values() if stem.startswith("blk.") or stem == "output_norm")
_PHI2_BIASES = tuple(stem for stem in _PHI2.values() if stem != "token_embd")

ARCHITECTURES: tuple[GgufArchitecture, ...] = (
    GgufArchitecture(
        "llama",
        ("llama", "mistral"),
        rotated_pairs=("attn_q", "attn_k"),
        **_of(_LLAMA, (*_QKV, "blk.{}.attn_output", *_GLU)),
    ),
    GgufArchitecture("qwen2", ("qwen2",), **_of(_LLAMA, (*_QKV, "output"))),
    GgufArchitecture("qwen3", ("qwen3",), **_of({**_LLAMA, **_HEAD_NORMS}, _QKV)),
    GgufArchitecture("gemma", ("gemma",), **_of({**_TOP, **_ATTENTION, **_MLP, **_TWO_NORMS}, _QKV, norm_offset=1.0)),
    GgufArchitecture("gemma2", ("gemma2",), **_of(_GEMMA2, _QKV, norm_offset=1.0)),
    GgufArchitecture("gemma3", ("gemma3_text",), **_of({**_GEMMA2, **_HEAD, **_HEAD_NORMS}, _QKV, norm_offset=1.0)),
    GgufArchitecture("phi2", ("phi",), **_of({**_PHI2, **_HEAD}, (*_PHI2_BIASES, "output"))),
    GgufArchitecture("phi3", ("phi3",), **_of({**_TOP, **_HEAD, **_TWO_NORMS, **_PHI3})),
    GgufArchitecture(
        "gpt2", ("gpt2",), **_of({**_GPT2, **_HEAD}, _GPT2_BIASES, transposed=("c_attn", "c_proj", "c_fc"))
    ),
)
"""Every architecture that goes out to llama.cpp and comes back."""


def architecture_of(config: Mapping[str, Any]) -> GgufArchitecture:
    """Return the architecture of a Hugging Face config. Raises ConversionError for a `model_type` not listed here."""
    model_type = config.get("model_type")
    for architecture in ARCHITECTURES:
        if model_type in architecture.model_types:
            return architecture
    known = ", ".join(name for architecture in ARCHITECTURES for name in architecture.model_types)
    raise ConversionError(
        f"`model_type={model_type}` has no known GGUF architecture. Known: {known}. "
        "Export this model with another `export.format`."
    )


def architecture_named(gguf_name: str) -> GgufArchitecture:
    """Return the architecture of a GGUF file (`general.architecture`). Raises ConversionError for an unknown one."""
    for architecture in ARCHITECTURES:
        if architecture.name == gguf_name:
            return architecture
    known = ", ".join(architecture.name for architecture in ARCHITECTURES)
    raise ConversionError(f"This GGUF holds a model of architecture {gguf_name!r}. Known: {known}.")
