"""Errors in OpenAI's form, with the status that a client acts on."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from bitnet_train.serve.guard import error_body

CLIENT_GONE = 499  # of nginx; nobody reads it
_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is not answered. `retry_after` seconds later it might be."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.retry_after = status, message, code, param, retry_after

    def body(self) -> dict[str, Any]:
        """Return it in OpenAI's form."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return error_body(self.message, kind, code=self.code, param=self.param)

    def response(self) -> JSONResponse:
        """Return it as an answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse(self.body(), self.status, headers)
