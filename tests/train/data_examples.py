"""Small tokenizers, a small model, and the way to the real text, for the tests of the data room."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INJECTING = (  # SmolLM2's way: a system prompt appears where none was given
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}" + CHATML
)
FORGETTING = (  # Qwen3's way: only the last answer keeps its (empty) reasoning
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if loop.last and m['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
UNMARKED = (  # no special token ends a turn; the answer follows a space
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "injecting": INJECTING, "forgetting": FORGETTING, "unmarked": UNMARKED}
_WITH_CALLS = (
    "{% if tools %}{{ '<tools>' + tools | tojson + '</tools>' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if CONDITION %}{% for c in m['tool_calls'] %}"
    "{{ '<call>' + c['function']['name'] + ' ' + ARGUMENTS + '</call>' }}{% endfor %}"
    "{% else %}{{ m['content'] }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_OBJECT, _TEXT = "c['function']['arguments'] | tojson", "c['function']['arguments']"
CALLING = {  # templates that want the arguments of a call as an object or as text, beside an empty content or none
    f"{arguments}, {condition}": _WITH_CALLS.replace("CONDITION", condition).replace("ARGUMENTS", arguments)
    for arguments in (_OBJECT, _TEXT)
    for condition in ("m['tool_calls']", "m['content'] is not string", "m['content'] == '' and m['tool_calls']")
}

DOCUMENTS = [
    "def add(a, b):\n    return a + b\n" * 6,
    "The quick brown fox jumps over the lazy dog. " * 10,
    "naïve café — 漢字 and 🙂 emoji.\n" * 8,
    "class Point:\n    def __init__(self, x, y):\n        self.x, self.y = x, y\n" * 5,
]


@cache
def _trained_bpe(*, trim_offsets: bool) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if trim_offsets:  # GPT-2's way: offsets without the white space of the token
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(DOCUMENTS, trainer)
    return tokenizer.to_str()


def make_tokenizer(template: str | None = CHATML, *, bos: bool = True, trim: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of 400 entries."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_bpe(trim_offsets=trim)),
        bos_token="<|endoftext|>" if bos else None,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.chat_template = template
    return tokenizer


def make_llama(vocabulary: int = 400, positions: int = 64) -> LlamaForCausalLM:
    """Return a random two-layer Llama, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=positions,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            initializer_range=0.3,  # far from uniform, so that a leak would show
        )
        return LlamaForCausalLM(config).eval()


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def shared_data(relative: str) -> Path:
    """Return a file of the development data; skip the test where it is not at hand."""
    folder = Path(os.environ.get("BITNET_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (folder / relative).exists():
        pytest.skip(f"no {relative} under {folder}; set BITNET_TEST_DATA to the development data")
    return folder / relative
