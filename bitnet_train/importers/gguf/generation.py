"""What a GGUF says of writing: the tokens that end a text as llama.cpp finds them, and the sampling it recommends.

    tokenizer.ggml.eos_token_id, eot_token_id, eom_token_id    end of text, of turn, of message: each ends
    tokens with a name that llama.cpp knows                    end too, whatever the keys say (`END_NAMES`)
    general.sampling.temp, top_k, top_p, min_p, penalty_repeat

Source: llama-vocab.cpp and llama-arch.cpp of llama.cpp 0.5.0-dev. Not taken over: that it also ends at the separators
of its fill-in-the-middle formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.gguf.file import GgufFile

END_KEYS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
END_NAMES = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
    *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
    *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
)
"""Texts of tokens at which llama.cpp ends by itself."""
SAMPLING_KEYS: Mapping[str, str] = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
"""Hugging Face's name of a setting -> llama.cpp's key."""

_NO_END = (("<|return|>", "<|call|>"), ("<|calls|>", "<|flush|>"))  # beside either pair, <|end|> ends only a part


def restore_gguf_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, gguf: GgufFile) -> None:
    """Give a model from a GGUF the settings of its file; where the file says nothing, its own stay."""
    ends, sampling = _ends(tokenizer, gguf, model.config.get_text_config().vocab_size), _sampling(gguf)
    settings = model.generation_config or GenerationConfig()
    if ends:
        settings.eos_token_id = ends if len(ends) > 1 else ends[0]
    for name, value in sampling.items():
        setattr(settings, name, value)
    if sampling:
        settings.do_sample = True
    model.generation_config = settings


def _ends(tokenizer: PreTrainedTokenizerBase, gguf: GgufFile, num_rows: int) -> list[int]:
    """Return the ids that end a text, that of the end of a text first."""
    vocabulary = tokenizer.get_vocab()
    partial = any(all(name in vocabulary for name in pair) for pair in _NO_END)
    names = [name for name in END_NAMES if name in vocabulary and not (partial and name == "<|end|>")]
    found = [gguf.metadata.get(key) for key in END_KEYS] + [vocabulary[name] for name in names]
    return list(dict.fromkeys(number for number in found if type(number) is int and 0 <= number < num_rows))


def _sampling(gguf: GgufFile) -> dict[str, Any]:
    values = {name: gguf.metadata.get(key) for name, key in SAMPLING_KEYS.items()}
    return {name: value for name, value in values.items() if type(value) in (int, float)}
