"""Continue a prompt: Hugging Face's `generate`, greedy unless a temperature is given, with a text stream.

Nothing of the decoding is ours, and nothing of it is hidden: temperature 0 is greedy, any other samples with the
given seed, and the random state of the caller is left as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import TextStreamer

from bitnet_train.errors import DataError


@dataclass(frozen=True)
class Generation:
    """A continuation: its text without the prompt, its token ids, and how long it took."""

    text: str
    token_ids: list[int]
    num_prompt_tokens: int
    seconds: float


class _CallbackStreamer(TextStreamer):
    """Hands each finished piece of text to a function."""

    def __init__(self, tokenizer: Any, receive: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._receive = receive

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._receive(text)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    chat: bool = False,
    stream: Callable[[str], object] | None = None,
) -> Generation:
    """Continue `prompt` by up to `max_new_tokens` tokens.

    Parameters
    ----------
    model, tokenizer
        From `load` and `load_tokenizer`, or any Hugging Face causal LM.
    prompt
        The text to continue.
    max_new_tokens
        The most tokens to add; an end-of-text token stops earlier.
    temperature
        0: always the likeliest token. Above 0: sample with this temperature.
    top_k, top_p
        When sampling, keep the `top_k` likeliest tokens (0: all) and of them the likeliest with total probability
        `top_p` (1: all).
    seed
        Of the sampling; the same seed gives the same text.
    chat
        Treat `prompt` as a user's message and wrap it in the tokenizer's chat template.
    stream
        Called with each piece of text as it comes.

    Raises
    ------
    DataError
        When the prompt is empty, or `chat` is asked of a tokenizer without a chat template.
    """
    inputs = _encode(tokenizer, prompt, chat=chat).to(model.device)
    streamer = _CallbackStreamer(tokenizer, stream) if stream else None
    options: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        options = {"do_sample": True, "temperature": temperature, "top_k": top_k, "top_p": top_p}
    else:
        options |= {"temperature": None, "top_k": None, "top_p": None}
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        write: Any = model.generate
        output = write(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=max_new_tokens,
            pad_token_id=_pad_token_id(model, tokenizer),
            streamer=streamer,
            **options,
        )
    seconds = time.perf_counter() - start
    token_ids = output[0, inputs.shape[1] :].tolist()
    text = str(tokenizer.decode(token_ids, skip_special_tokens=True))
    return Generation(text, token_ids, inputs.shape[1], seconds)


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: str, *, chat: bool) -> torch.Tensor:
    if chat:
        if not tokenizer.chat_template:
            raise DataError("This tokenizer has no chat template. Use a chat model, or leave `chat` off.")
        prompt = str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        )
    token_ids = tokenizer(prompt, add_special_tokens=not chat)["input_ids"]
    if not token_ids:
        raise DataError("The prompt is empty: there is nothing to continue. Give at least one character.")
    return torch.tensor([token_ids])


def _pad_token_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the padding token; a single prompt is never padded, but `generate` warns when there is none."""
    configured = getattr(model.generation_config, "pad_token_id", None)
    return next(
        (token for token in (configured, tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None), 0
    )
