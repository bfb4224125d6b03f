"""From a request to the texts of a worker: one for each prompt and each of its `n` choices."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from bitnet_train.serve.api.errors import ApiError
from bitnet_train.serve.api.forms import MOST_CHOICES, Chat, Completion, Writing

Message = dict[str, Any]
_SEEDS = 1 << 63


def texts_of_completion(form: Completion) -> list[Message]:
    """Return what a worker is told of a completion, without ids; choices of one prompt lie together."""
    if form.max_tokens == 0 and not form.echo:
        raise ApiError(400, "`max_tokens: 0` needs `echo: true`.", code="invalid_value", param="max_tokens")
    told = {"max_new_tokens": form.max_tokens, "logprobs": form.logprobs, "echo": bool(form.echo)}
    return _repeated(form, _prompts(form.prompt), told)


def texts_of_chat(form: Chat) -> list[Message]:
    """Return what a worker is told of a chat, without ids."""
    if form.top_logprobs is not None and not form.logprobs:
        raise ApiError(400, "`top_logprobs` needs `logprobs: true`.", code="invalid_value", param="top_logprobs")
    most = form.max_completion_tokens if form.max_completion_tokens is not None else form.max_tokens
    logprobs = (form.top_logprobs or 0) if form.logprobs else None
    told = {"max_new_tokens": most, "logprobs": logprobs, "variables": form.chat_template_kwargs}
    return _repeated(form, [form.messages], told)


def _prompts(given: Any) -> list[Any]:
    is_one = isinstance(given, str) or isinstance(given[0], int)
    return [given] if is_one else list(given)


def _repeated(form: Writing, prompts: list[Any], told: Mapping[str, Any]) -> list[Message]:
    """Return a message a choice; the choices of a prompt have seeds that follow on each other."""
    choices = form.n or 1
    if len(prompts) * choices > MOST_CHOICES:
        raise ApiError(400, f"A request may ask for {MOST_CHOICES} texts at most.", code="invalid_value", param="n")
    seed = form.seed if form.seed is not None else secrets.randbelow(_SEEDS)
    shared = {"do": "write", "stop": _stop(form), "ignore_end": form.ignore_eos, **told}
    return [
        {**shared, "prompt": prompt, "sampling": {**_sampling(form), "seed": _within(seed + choice)}}
        for prompt in prompts
        for choice in range(choices)
    ]


def _sampling(form: Writing) -> dict[str, Any]:
    return {
        "temperature": 1.0 if form.temperature is None else form.temperature,
        "top_p": 1.0 if form.top_p is None else form.top_p,
        "top_k": max(form.top_k or 0, 0),
        "min_p": form.min_p or 0.0,
        "typical_p": 1.0 if form.typical_p is None else form.typical_p,
        "repetition_penalty": 1.0 if form.repetition_penalty is None else form.repetition_penalty,
        "frequency_penalty": form.frequency_penalty or 0.0,
        "presence_penalty": form.presence_penalty or 0.0,
        "logit_bias": form.logit_bias or {},
    }


def _within(seed: int) -> int:
    return seed if seed < 1 << 64 else seed - (1 << 64)


def _stop(form: Writing) -> list[str]:
    return [form.stop] if isinstance(form.stop, str) else list(form.stop or [])
