"""Models small enough to export in every type in no time, and the real llama.cpp that has to read them.

The library is what `scripts/build_llama_cpp` prints, in `BITNET_TEST_LLAMA_CPP`; without it these tests skip.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.importers.load import tiny_folder
from bitnet_train.model.convert import convert
from bitnet_train.model.settings import Selection
from bitnet_train.packed import export_packed
from bitnet_train.quant.scheme import WeightScheme
from scripts.llama_cpp.libllama_api import VARIABLE, library_file

MakePacked = Callable[..., Path]


def small_llama(tokenizer: PreTrainedTokenizerBase, **sizes: int | bool) -> PreTrainedModel:
    """Return a random Llama, wide enough for blocks of 256, whose logits are far from uniform."""
    config = LlamaConfig(
        **{
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
            **sizes,
        },
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for name, parameter in model.named_parameters():
            spread = 0.2 if "embed_tokens" in name or "norm" in name else 0.06
            parameter.copy_(("norm" in name) + spread * torch.randn_like(parameter))
        embedding = model.get_input_embeddings().weight
        embedding.copy_(embedding.bfloat16())
    return model.eval()


@pytest.fixture(scope="session", autouse=True)
def llama_cpp() -> Path:
    """Return the file of libllama, or skip."""
    file = library_file()
    if file is None:
        pytest.skip(f"{VARIABLE} is not set: export {VARIABLE}=$(scripts/build_llama_cpp)")
    return file


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """Return the tokenizer of the bundled model: byte-level BPE with three special tokens and a chat template."""
    return AutoTokenizer.from_pretrained(tiny_folder())


@pytest.fixture(scope="session")
def make_packed(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> MakePacked:
    """Return a function that packs a small 1-bit Llama and gives its folder; each is made once."""
    made: dict[tuple[object, ...], Path] = {}

    def make(
        weight: WeightScheme,
        *,
        tables: str = "exact",
        words: PreTrainedTokenizerBase = tokenizer,
        ends: tuple[int, ...] = (),
        **sizes: int | bool,
    ) -> Path:
        key = (weight, tables, id(words), ends, *sizes.items())
        if key not in made:
            made[key] = tmp_path_factory.mktemp("packed") / "artefact"
            model = small_llama(words, **sizes)
            convert(model, selection=Selection(roles=("attention", "mlp")), weight=weight)
            if ends:
                model.generation_config.eos_token_id = list(ends)
            export_packed(model.eval(), words, made[key], {"base_model": "small"}, embedding=tables, head=tables)
        return made[key]

    return make
