"""The routes of the API, and errors of any kind in OpenAI's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from bitnet_train.serve.api.answers import Answer, ChatAnswer, CompletionAnswer
from bitnet_train.serve.api.errors import ApiError
from bitnet_train.serve.api.forms import Chat, Completion, Detokenize, Tokenize, Writing, read_form
from bitnet_train.serve.api.metrics import metrics_text
from bitnet_train.serve.api.models import Models
from bitnet_train.serve.api.texts import texts_of_chat, texts_of_completion
from bitnet_train.serve.api.writing import Job, Writer

_ANSWER_SECONDS = 60.0


class Api:
    """What the routes do, over the models of a server."""

    def __init__(self, models: Models, writer: Writer) -> None:
        self._models, self._writer = models, writer

    def routes(self) -> list[Route]:
        """Return all routes, most of them below /v1 too."""
        asked = {"completions": self.completions, "chat/completions": self.chat}
        plain = {"tokenize": self.tokenize, "detokenize": self.detokenize}
        return [
            *(Route(f"/v1/{path}", endpoint, methods=["POST"]) for path, endpoint in (asked | plain).items()),
            *(Route(f"/{path}", endpoint, methods=["POST"]) for path, endpoint in plain.items()),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]

    async def completions(self, request: Request) -> Response:
        """Continue texts."""
        form = await read_form(request, Completion)
        return await self._write(request, form, texts_of_completion(form), CompletionAnswer)

    async def chat(self, request: Request) -> Response:
        """Answer a chat."""
        form = await read_form(request, Chat)
        return await self._write(request, form, texts_of_chat(form), ChatAnswer)

    async def tokenize(self, request: Request) -> Response:
        """Cut a text, or a chat, into tokens."""
        form = await read_form(request, Tokenize)
        if (form.prompt is None) == (form.messages is None):
            raise ApiError(400, "Give `prompt` or `messages`.", code="invalid_value", param="prompt")
        prompt = form.prompt if form.prompt is not None else form.messages
        message = {"do": "tokenize", "prompt": prompt, "special": form.add_special_tokens}
        facts, answer = await self._ask(form.model, message)
        ids = answer["token_ids"]
        return JSONResponse(
            {"tokens": ids, "token_strs": answer["texts"], "count": len(ids), "max_model_len": facts["context"]}
        )

    async def detokenize(self, request: Request) -> Response:
        """Put tokens together to a text."""
        form = await read_form(request, Detokenize)
        _, answer = await self._ask(form.model, {"do": "detokenize", "token_ids": form.tokens})
        return JSONResponse({"prompt": answer["text"]})

    async def models(self, request: Request) -> Response:
        """List the models, loaded or not."""
        return JSONResponse({"object": "list", "data": [self._described(name) for name in self._models.names]})

    async def model(self, request: Request) -> Response:
        """Describe one model."""
        return JSONResponse(self._described(self._models.name_of(request.path_params["name"])))

    async def health(self, request: Request) -> Response:
        """Say that the server answers."""
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Return figures for Prometheus."""
        return PlainTextResponse(
            metrics_text(self._writer.counters, self._models), media_type="text/plain; version=0.0.4"
        )

    async def _write(
        self, request: Request, form: Writing, texts: list[dict[str, Any]], kind: type[Answer]
    ) -> Response:
        if form.stream_options is not None and not form.stream:
            raise ApiError(400, "`stream_options` needs `stream: true`.", code="invalid_value", param="stream_options")
        name = self._models.name_of(form.model)
        with_usage = form.stream_options is not None and form.stream_options.include_usage
        return await self._writer.respond(
            request, Job(name, texts, form.n or 1, kind(name), bool(form.stream), with_usage)
        )

    async def _ask(self, model: str | None, message: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        return await self._writer.ask(self._models.name_of(model), message, _ANSWER_SECONDS)

    def _described(self, name: str) -> dict[str, Any]:
        hand = self._models.loaded.get(name)
        known = {} if hand is None else {"max_model_len": hand.facts["context"]}
        return {"id": name, "object": "model", "created": self._models.created, "owned_by": "bitnet-train", **known}


async def api_error(request: Request, error: Exception) -> Response:
    """Return an ApiError as an answer."""
    assert isinstance(error, ApiError)
    return error.response()


async def http_error(request: Request, error: Exception) -> Response:
    """Return what Starlette found wrong, such as a path that is none."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    answer = ApiError(error.status_code, f"{request.method} {request.url.path[:100]}: {error.detail}.", code=code)
    response = answer.response()
    response.headers.update(error.headers or {})
    return response


async def unexpected_error(request: Request, error: Exception) -> Response:
    """Return what nobody thought of: the server logs what it was, the answer does not say it."""
    return ApiError(500, "The server failed at this request; its log says how.", code="internal_error").response()


HANDLERS: Mapping[Any, Callable[..., Any]] = {
    ApiError: api_error,
    HTTPException: http_error,
    Exception: unexpected_error,
}
