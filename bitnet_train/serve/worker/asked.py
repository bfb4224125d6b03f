"""What a request asks of the worker: a prompt, how it goes on, and what is told of each token.

The server has checked the form of a request (`serve.api`); what needs the tokenizer or the model is checked here, and
what is wrong with one request is an error of that one alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitnet_train.errors import DataError
from bitnet_train.runtime.generation import Sampling
from bitnet_train.runtime.messages import read_prompts
from bitnet_train.runtime.native.context import Context, require_known_bias
from bitnet_train.runtime.native.tokens import Tokens
from bitnet_train.serve.worker.engine import Facts

_MOST_CHARACTERS = 128  # of a token: what has more of them than that a token of the context is not even cut


class TooLong(DataError):
    """A prompt that does not fit with what is asked for."""


@dataclass(frozen=True)
class Asked:
    """A checked request. `logprobs` None tells none, else that many of the likeliest too; `echo` tells the prompt.

    Texts of one `request` take turns with those of others.
    """

    prompt: list[int]
    sampling: Sampling
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    echo: bool = False
    ignore_end: bool = False
    seconds: float | None = None
    request: str = ""


def read_asked(message: Mapping[str, Any], tokens: Tokens, facts: Facts, variables: Mapping[str, Any]) -> Asked:
    """Return what a message `write` asks for.

    `max_new_tokens` None is as much as the context holds. Raises DataError or ConfigError for a prompt that is empty,
    too long or unknown to the tokenizer, a chat that the template refuses, a setting that is out of range.
    """
    prompt = prompt_ids(message["prompt"], tokens, facts, {**variables, **(message.get("variables") or {})})
    room = facts.context - len(prompt)
    given = message.get("max_new_tokens")
    sampling = _sampling(message.get("sampling", {}), max(room, 1) if given is None else given)
    require_known_bias(sampling.logit_bias, facts.vocab)
    _check(prompt, sampling.max_new_tokens, facts)
    return Asked(
        prompt,
        sampling,
        tuple(message.get("stop") or ()),
        message.get("logprobs"),
        bool(message.get("echo")),
        bool(message.get("ignore_end")),
        message.get("seconds"),
        str(message.get("request", message["id"])),
    )


def _sampling(told: Mapping[str, Any], max_new_tokens: int) -> Sampling:
    """Return the settings of a text; JSON has made texts of the token ids of a bias."""
    bias = {int(token_id): value for token_id, value in told.get("logit_bias", {}).items()}
    return Sampling(**{**told, "logit_bias": bias, "max_new_tokens": max_new_tokens})


def _check(prompt: list[int], max_new_tokens: int, facts: Facts) -> None:
    if not prompt:
        raise DataError("The prompt is empty: there is nothing to continue. Give at least one character.")
    Context(facts.vocab, facts.context, facts.context).known(prompt)
    if len(prompt) + max_new_tokens > facts.context:
        raise TooLong(
            f"The prompt has {len(prompt)} tokens and `max_tokens` asks for {max_new_tokens}, together "
            f"{len(prompt) + max_new_tokens}, but the context of this model is {facts.context} tokens. Shorten the "
            "prompt, or ask for fewer new tokens."
        )


def prompt_ids(
    prompt: Any, tokens: Tokens, facts: Facts, variables: Mapping[str, Any], *, special: bool = True
) -> list[int]:
    """Return the token ids of a text, a chat or token ids; DataError for anything else, TooLong unread."""
    if isinstance(prompt, list) and prompt and all(type(each) is int for each in prompt):
        return prompt
    asked, several = read_prompts(prompt, chat=False)
    if several:
        raise DataError("Several prompts are given where one is read.")
    one = asked[0]
    _require_few_characters(one, facts)
    if isinstance(one, str):
        return tokens.encode(one, special=special)
    return tokens.prompt_ids(one, variables)


def _require_few_characters(prompt: str | list[dict[str, Any]], facts: Facts) -> None:
    """Raise TooLong for what cannot fit, before minutes are spent on it."""
    count = len(prompt) if isinstance(prompt, str) else sum(len(message["content"]) for message in prompt)
    if count > _MOST_CHARACTERS * facts.context:
        raise TooLong(
            f"The prompt has {count:,} characters, but the context of this model is {facts.context} tokens. Shorten it."
        )
