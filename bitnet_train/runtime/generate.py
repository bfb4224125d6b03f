"""Continue a prompt: Hugging Face's `generate`, greedy unless a temperature is given, with a text stream.

Nothing of the decoding is ours, and nothing of it is hidden: temperature 0 is greedy, any other samples with the
given seed, and the random state of the caller is left as it was. Stop strings are found in the text (`native.written`)
as the native runtime finds them, so both engines end a text alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

from bitnet_train.errors import DataError
from bitnet_train.model.config_fields import text_config, vocab_size
from bitnet_train.runtime.generation import Generation, GenerationKeywords, GenerationOptions, Sampling
from bitnet_train.runtime.messages import Prompt, read_prompts
from bitnet_train.runtime.native.context import Context, require_known_bias
from bitnet_train.runtime.native.written import Written
from bitnet_train.runtime.processors import processors
from bitnet_train.templates.render import render_chat

__all__ = ["Generation", "continue_ids", "generate"]


_NOTHING_BY_NAME: Any = {"temperature": None, "top_k": None, "top_p": None, "min_p": None}  # `processors` does it all


class _Writing(StoppingCriteria):
    """Hands every new token to the text that is being written, and stops where a stop string ends it."""

    def __init__(self, written: Written) -> None:
        self._written = written

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        stopped = self._written.push(int(input_ids[0, -1]))
        return torch.full((input_ids.shape[0],), stopped, dtype=torch.bool, device=input_ids.device)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    *,
    stream: Callable[[str], object] | None = None,
    **options: Unpack[GenerationKeywords],
) -> Generation:
    """Continue `prompt` by up to `max_new_tokens` tokens; an end-of-text token or a stop string ends earlier.

    Parameters
    ----------
    model, tokenizer
        From `load` and `load_tokenizer`, or any Hugging Face causal LM.
    prompt
        The text to continue, or a chat: a list of messages, each with `role` and `content`.
    stream
        Called with each piece of text as it comes.
    options
        `max_new_tokens`, `temperature`, `seed`, ..., `chat`, `stop`: see `GenerationOptions`.

    Raises
    ------
    DataError
        When the prompt is empty, neither text nor chat, or a chat where the tokenizer has no chat template.
    ConfigError
        When a setting is out of range.
    """
    chosen = GenerationOptions(**options)
    inputs = _encode(tokenizer, prompt, chat=chosen.chat, variables=chosen.chat_template_variables or {})
    require_known_bias(chosen.logit_bias, vocab_size(model))
    _require_room(model, inputs[0].tolist(), chosen.max_new_tokens)
    written = Written(lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True)), chosen.stop, stream)
    start = time.perf_counter()
    token_ids = continue_ids(model, tokenizer, inputs[0].tolist(), written, chosen)
    seconds = time.perf_counter() - start
    return Generation(written.finish(), token_ids, inputs.shape[1], seconds)


def _require_room(model: PreTrainedModel, prompt: list[int], max_new_tokens: int) -> None:
    """Refuse what goes past the context, as the native engine does: positions beyond it were never trained."""
    context = getattr(text_config(model.config), "max_position_embeddings", None)
    if isinstance(context, int) and context > 0:
        Context(vocab_size(model), context, context).check(prompt, max_new_tokens)


def continue_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    written: Written,
    sampling: Sampling,
) -> list[int]:
    """Continue token ids as `sampling` says, handing each to `written`, which may stop it; return the new ids.

    The text is in `written`; `finish` it. The random state of the caller is left as it was.
    """
    inputs = torch.tensor([list(prompt)], device=model.device)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), _nothing_hidden(model):
        torch.manual_seed(sampling.seed)
        write: Any = model.generate
        output = write(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=_pad_token_id(model, tokenizer),
            use_cache=True,
            stopping_criteria=StoppingCriteriaList([_Writing(written)]),
            logits_processor=processors(sampling, inputs.shape[1]),
            do_sample=not sampling.is_greedy,
            **_NOTHING_BY_NAME,
        )
    return output[0, inputs.shape[1] :].tolist()


@contextmanager
def _nothing_hidden(model: PreTrainedModel) -> Iterator[None]:
    """Take only the end of a text from the model's own settings: no penalty that was not asked for, as natively."""
    kept = model.generation_config
    ends = {name: getattr(kept, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ends)
    try:
        yield
    finally:
        model.generation_config = kept


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, *, chat: bool, variables: Mapping[str, Any]) -> Tensor:
    prompts, several = read_prompts(prompt, chat=chat)
    if several:
        raise DataError("A list of prompts is given, and this takes one prompt: call it for each.")
    asked = prompts[0]
    is_text = isinstance(asked, str)
    text = asked if is_text else _render(tokenizer, asked, variables)
    token_ids = tokenizer(text, add_special_tokens=is_text)["input_ids"]
    if not token_ids:
        raise DataError("The prompt is empty: there is nothing to continue. Give at least one character.")
    return torch.tensor([token_ids])


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> str:
    if not tokenizer.chat_template:
        raise DataError("This tokenizer has no chat template. Use a chat model, or leave `chat` off.")
    return render_chat(tokenizer, messages, variables=variables)


def _pad_token_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the padding token; a single prompt is never padded, but `generate` warns when there is none."""
    configured = getattr(model.generation_config, "pad_token_id", None)
    named, rows = (configured, tokenizer.pad_token_id, tokenizer.eos_token_id), vocab_size(model)
    return next((token for token in named if isinstance(token, int) and 0 <= token < rows), 0)
