"""What is refused, in the form of OpenAI's errors."""

from __future__ import annotations

from bitnet_train.errors import BitnetTrainError


class Refused(BitnetTrainError):
    """A request that is answered with an error: status, message, and the field that is wrong."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def kind(self) -> str:
        """The `type` of the error."""
        return "server_error" if self.status >= 500 else "invalid_request_error"


def not_found(what: str, name: str) -> Refused:
    """Return the refusal of something that is not there."""
    return Refused(404, f"There is no {what} `{name[:80]}`.", code="not_found")
