"""The same +-1 weights for both sides: packed folders of ours, and GGUF files of llama.cpp made from those folders.

    make_artefact   a random Llama, or SmolLM2 from a GGUF, converted to +-1 without training and packed
    write_gguf      that folder as a float GGUF: every 1-bit weight is scale * code, which float16 holds exactly
    quantize        `llama-quantize` into one type; llama.cpp's own message where it refuses

Speed does not depend on what the signs say, so nothing is trained. A binary row scale is the mean magnitude of its
block and the largest one too, so Q1_0, Q2_0 and TQ* store the weights without loss; Q4_0 and Q6_K round. llama.cpp
rotates neighbouring values where Hugging Face rotates halves: the rows of query and key are permuted for it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from bitnet_train.formats.planes import unpack_planes
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.convert import convert
from bitnet_train.model.settings import Selection
from bitnet_train.packed import Manifest, export_packed, open_weights, read_manifest
from bitnet_train.packed.reader import WeightsReader
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.weight import dequantize

SYNTHETIC = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 6,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 16384,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
FILE_TYPES = {"F16": 1, "Q8_0": 7, "Q4_0": 2, "Q2_0": 41, "TQ2_0": 37, "TQ1_0": 36, "Q1_0": 40}
_MERGE = ("Ġ", "Ġ")  # llama.cpp wants at least one
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@dataclass(frozen=True)
class Subject:
    """One model of the comparison: where its weights come from, and how wide embedding and head are."""

    name: str
    tables: str  # "1-bit" or "int8": embedding and head
    gguf: Path | None = None  # None: the synthetic model
    weight: WeightScheme = field(default_factory=WeightScheme)

    @property
    def label(self) -> str:
        """Name in results and of files."""
        return f"{self.name}-{self.tables}"


def make_artefact(subject: Subject, folder: Path) -> Path:
    """Build and pack the model of `subject` into `folder`, unless it is there already; return the folder."""
    if (folder / "manifest.json").is_file():
        return folder
    model, tokenizer = _random_llama() if subject.gguf is None else _from_gguf(subject.gguf)
    one_bit_tables = ("head", "embedding") if subject.tables == "1-bit" else ()
    convert(model, selection=Selection(roles=("attention", "mlp", *one_bit_tables)), weight=subject.weight)
    wide = {} if one_bit_tables else {"embedding": "int8", "head": "int8"}
    export_packed(model.eval(), tokenizer, folder, {"base_model": subject.name}, **wide)
    return folder


def _random_llama() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    torch.manual_seed(0)
    config = LlamaConfig(**SYNTHETIC)
    return LlamaForCausalLM(config).float(), byte_tokenizer(config.vocab_size)


def _from_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    loaded = load_pretrained(str(path))
    return loaded.model, loaded.tokenizer


def byte_tokenizer(vocab_size: int) -> PreTrainedTokenizerBase:
    """Return a tokenizer that writes every text as bytes and has `vocab_size` tokens."""
    vocab = {token: i for i, token in enumerate(byte_vocabulary(vocab_size))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[_MERGE]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def byte_vocabulary(vocab_size: int) -> list[str]:
    """Return the 256 byte letters of GPT-2's alphabet, one merge of two, then names for the rest of the vocabulary."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "".join(_MERGE)]
    return tokens + [f"<extra_{i}>" for i in range(len(tokens), vocab_size)]


def write_gguf(folder: Path, out: Path, tokenizer_from: Path | None) -> Path:
    """Write the packed Llama in `folder` as a float GGUF, unless `out` is there; its tokenizer is that of a GGUF.

    1-bit weights are float16 and everything else, int8 tables too, float32: all exact. Without `tokenizer_from` the
    tokens are bytes.
    """
    if out.is_file():
        return out
    config = LlamaConfig.from_pretrained(folder)
    draft = out.with_suffix(".partial")
    writer = gguf.GGUFWriter(draft, "llama")
    _add_shape(writer, config)
    if tokenizer_from is None:
        _addbyte_tokenizer(writer, config.vocab_size)
    else:
        _copy_tokenizer(writer, tokenizer_from)
    for name, values in _tensors(folder, config):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return draft.rename(out)


def _add_shape(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name("one-bit")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(head_dim)


def _addbyte_tokenizer(writer: gguf.GGUFWriter, vocab_size: int) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(byte_vocabulary(vocab_size))
    writer.add_token_types([gguf.TokenType.NORMAL] * vocab_size)
    writer.add_token_merges([" ".join(_MERGE)])
    writer.add_bos_token_id(SYNTHETIC["bos_token_id"])
    writer.add_eos_token_id(SYNTHETIC["eos_token_id"])
    writer.add_add_bos_token(False)


def _copy_tokenizer(writer: gguf.GGUFWriter, source: Path) -> None:
    for entry in gguf.GGUFReader(source).fields.values():
        if entry.name.startswith("tokenizer."):
            items = entry.types[-1] if entry.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(entry.name, entry.contents(), entry.types[0], sub_type=items)


def _tensors(folder: Path, config: LlamaConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every tensor under llama.cpp's name; a tied head is left out, as llama.cpp expects."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, values in dense_weights(folder):
        target = _target_name(name)
        num_heads = heads.get(name.rpartition(".")[2])
        if target is not None:
            yield f"{target}.weight", values if num_heads is None else _interleave(values, num_heads)


def dense_weights(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every weight of a packed folder by the name of its module: float16 where it is 1-bit, else float32.

    A tied head is left out.
    """
    manifest = read_manifest(folder)
    with open_weights(folder, manifest) as weights:
        yield from _dense(manifest, weights)


def _dense(manifest: Manifest, weights: WeightsReader) -> Iterator[tuple[str, np.ndarray]]:
    layers = {layer.name: layer for layer in manifest.layers}
    for name, layer in layers.items():
        codes = unpack_planes(weights.read(f"{name}.planes"), layer.num_inputs, layer.scheme.code_set)
        values = dequantize(codes, weights.read(f"{name}.scale").float()).numpy()
        half = values.astype(np.float16)
        assert np.array_equal(half, values), f"{name}: a scale is no float16"
        yield name, half
    for table in manifest.tables:
        if f"{table.name}.codes" not in manifest.tied:
            codes, scale = weights.read(f"{table.name}.codes"), weights.read(f"{table.name}.scale")
            yield table.name, (codes.float() * scale.float().unsqueeze(1)).numpy()
    for name in manifest.tensors:
        module, _, leaf = name.rpartition(".")
        if module not in layers and leaf == "weight":
            yield module, weights.read(name).float().numpy()


def _target_name(name: str) -> str | None:
    """Return llama.cpp's name of a module, or None for one it has no tensor for."""
    if name in _NAMES:
        return _NAMES[name]
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
    return f"blk.{found[1]}.{_NAMES[found[2]]}" if found else None


def _interleave(values: np.ndarray, num_heads: int) -> np.ndarray:
    """Reorder the rows of each head from (first halves, second halves) to pairs of one rotation."""
    rows, inputs = values.shape
    pairs = values.reshape(num_heads, 2, rows // num_heads // 2, inputs)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, inputs))


def quantize(tool: Path, source: Path, out: Path, file_type: str, flags: list[str], num_threads: int = 2) -> str:
    """Run `llama-quantize`, unless `out` is there. Returns "" or, where it refuses, its last error line."""
    if out.is_file():
        return ""
    draft = out.with_suffix(".partial")
    done = subprocess.run(
        [tool, *flags, source, draft, file_type, str(num_threads)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        draft.unlink(missing_ok=True)
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if "fail" in line or "error" in line]
        return lines[0] if lines else f"exit code {done.returncode}"
    draft.rename(out)
    return ""
