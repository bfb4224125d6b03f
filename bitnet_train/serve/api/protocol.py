"""HTTP as uvicorn speaks it, but the head of a request is bounded in bytes and in time.

httptools keeps a header of any length until it ends, and nobody waits for a head that never comes to an end: one client
could fill the memory, or hold every connection that the server takes. (Bodies are the guard's and the form's business.)
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 1 << 19  # more than is read at once, which may hold the beginning of a body too
MOST_HEAD_SECONDS = 30.0


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    most_head_seconds = MOST_HEAD_SECONDS

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head_bytes = 0
        self._is_in_head = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless a head has become too long."""
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._timer is None:
                self._await_head()
        if self._head_bytes > MOST_HEAD_BYTES:
            self.send_400_response(f"The head of a request is above {MOST_HEAD_BYTES} bytes.")
        else:
            super().data_received(data)

    def on_headers_complete(self) -> None:
        """Begin the request."""
        self._is_in_head, self._head_bytes = False, 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next head, which may come whenever it likes as long as nothing of it has."""
        self._is_in_head = True
        super().on_message_complete()

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self.most_head_seconds, self._is_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
