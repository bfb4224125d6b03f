"""The application: routes over workers, with what is counted, and the guard before all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from bitnet_train.serve.api.hand import Start
from bitnet_train.serve.api.metrics import Counters
from bitnet_train.serve.api.models import Models
from bitnet_train.serve.api.routes import HANDLERS, Api
from bitnet_train.serve.api.writing import Bounds, Writer


def application(
    starts: Mapping[str, Start], bounds: Bounds, most_models: int = 1, more_routes: Sequence[BaseRoute] = ()
) -> Starlette:
    """Return the application of these models; its workers end with it, or when `state.close` is awaited."""
    counters = Counters()
    models = Models(starts, most_models)
    api = Api(models, Writer(models, bounds, counters))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await models.close()

    app = Starlette(routes=[*api.routes(), *more_routes], exception_handlers=dict(HANDLERS), lifespan=lifespan)
    app.state.close = models.close
    app.add_middleware(_Counted, counters=counters, paths={route.path for route in api.routes()})
    return app


class _Counted:
    """Counts answers by path and status; a path that is none of ours is `other`, for anyone can make up many."""

    def __init__(self, app: Any, counters: Counters, paths: set[str]) -> None:
        self._app, self._counters, self._paths = app, counters, paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._counters.requests[path, message["status"]] += 1
            await send(message)

        await self._app(scope, receive, counted if scope["type"] == "http" else send)
