"""What a request may say, field by field. What would change the answer and is not done here is refused, not ignored.

read       the fields of the classes below
neutral    fields that are not done here, in the one value that asks for nothing (`n: 1`, `tools: []`, null)
ignored    fields that say something about the request and nothing about the answer (`user`, `metadata`)
refused    every other one
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from bitnet_train.json_text import parse_json
from bitnet_train.runtime.generation import MOST_BIAS, MOST_PENALTY, REPETITION
from bitnet_train.serve.api.errors import CLIENT_GONE, ApiError

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "best_of": (1,),
    "suffix": ("",),
    "modalities": (["text"],),
    "audio": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
IGNORED = frozenset(
    {
        *("user", "metadata", "store", "service_tier", "safety_identifier", "prediction", "parallel_tool_calls"),
        *("prompt_cache_key", "prompt_cache_retention"),
    }
)
MOST_CHOICES, MOST_LOGPROBS = 128, 20
_MOST_SHOWN = 80
_BODY_SECONDS = 60.0
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], Field(min_length=1)]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]  # a key of JSON
Penalty = Annotated[float, Field(ge=-MOST_PENALTY, le=MOST_PENALTY)]
StopText = Annotated[str, Field(min_length=1, max_length=128)]
Stop = StopText | Annotated[list[StopText], Field(max_length=8)]
Form = TypeVar("Form", bound="Asking")


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")  # what is extra is looked at in `_refuse_unread`


class StreamOptions(_Strict):
    """`include_usage` adds a last piece with the counts."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Asking(_Strict):
    """What every request has."""

    model: str | None = None


class Writing(Asking):
    """What completions and chats share.

    `top_k`, `min_p`, `typical_p`, `repetition_penalty` and `ignore_eos` go beyond OpenAI's, as elsewhere.
    """

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] | None = None
    min_p: Annotated[float, Field(ge=0, lt=1)] | None = None
    typical_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=REPETITION[0], le=REPETITION[1])] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-MOST_BIAS, le=MOST_BIAS)]] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 64)] | None = None
    stop: Stop | None = None
    ignore_eos: bool = False


class Completion(Writing):
    """A request to /v1/completions."""

    prompt: str | Tokens | Annotated[list[str] | list[Tokens], Field(min_length=1, max_length=MOST_CHOICES)]
    max_tokens: Annotated[int, Field(ge=0, lt=1 << 31)] | None = 16
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: bool | None = None


class Chat(Writing):
    """A request to /v1/chat/completions; `chat_template_kwargs` are given to the model's template."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class Tokenize(Asking):
    """A request to /tokenize: a text, or a chat."""

    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    add_special_tokens: bool = True


class Detokenize(Asking):
    """A request to /detokenize."""

    tokens: list[Annotated[int, Field(ge=0, lt=1 << 31)]]


async def read_form(request: Request, form: type[Form]) -> Form:
    """Return a request as its form; ApiError 400 that names the field."""
    try:
        body = await asyncio.wait_for(request.body(), _BODY_SECONDS)
    except TimeoutError:
        raise ApiError(408, "The body did not come in time.", code="timeout") from None
    except ClientDisconnect:
        raise ApiError(CLIENT_GONE, "The client went away.", code="client_gone") from None
    return parse_form(body, form)


def parse_form(body: bytes, form: type[Form]) -> Form:
    """Return a body as its form; ApiError 400 that names the field."""
    try:
        given = parse_json(body)
        if _ESCAPED_SURROGATE.search(body):  # half of a pair is no text, and nothing can be made of it
            json.dumps(given, ensure_ascii=False).encode()
    except ValueError as error:
        raise ApiError(400, f"The body is no JSON: {error}.", code="invalid_json") from None
    if not isinstance(given, dict):
        raise ApiError(400, "The body must be a JSON object.", code="invalid_json")
    _refuse_unread(given, form)
    try:
        return form.model_validate(given)
    except ValidationError as error:
        raise _invalid(error, form) from None


def _refuse_unread(given: Mapping[str, Any], form: type[Asking]) -> None:
    for name, value in given.items():
        if name in form.model_fields or name in IGNORED or value is None:
            continue
        shown = name[:_MOST_SHOWN]
        if name not in NEUTRAL:
            raise ApiError(400, f"`{shown}` is no field of this request.", code="unknown_parameter", param=shown)
        if not any(type(value) is not bool and value == neutral for neutral in NEUTRAL[name]):
            raise ApiError(
                400, f"`{name}` is not done by this server: leave it out.", code="unsupported_parameter", param=name
            )


def _invalid(error: ValidationError, form: type[Asking]) -> ApiError:
    faults = error.errors(include_url=False, include_input=False)
    first = faults[0]
    name = str(first["loc"][0]) if first["loc"] else None
    where = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or str(part) in form.model_fields)
    if name == "prompt":
        message = f"`prompt` must be a text, a list of at most {MOST_CHOICES} texts, token ids, or lists of those."
    else:
        message = f"`{where or name}`: {first['msg'][:200]}."
    return ApiError(400, message, code="invalid_value", param=name)
