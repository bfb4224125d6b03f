"""The whole of it: the page, its API, and what the guard in front of both has to know."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from bitnet_train.serve.guard import PLAYGROUND_API
from bitnet_train.serve.playground.desk import Desk, upload_bytes
from bitnet_train.serve.playground.house import House
from bitnet_train.serve.playground.routes import Api
from bitnet_train.serve.settings import PlaygroundConfig

PAGE = Path(__file__).parents[2] / "assets" / "playground"


def application(settings: PlaygroundConfig, house: House, models: Sequence[str] = ()) -> Starlette:
    """Return the app, to be guarded by `rules`; it opens these models when it starts."""
    desk = Desk.open(settings, house)
    api = Api(desk)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        for source in models:
            await desk.open_model(source)
        try:
            yield
        finally:
            await desk.close()

    page: Any = StaticFiles(directory=PAGE, html=True, check_dir=False)
    routes = [
        Route("/health", _health),
        Route("/", _to_page),
        Mount(PLAYGROUND_API, routes=api.routes()),
        Mount("/playground", app=page),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=api.handlers())


def rules(settings: PlaygroundConfig, token: str) -> Mapping[str, Any]:
    """Return what `guarded` is told: the page is open, as a browser asks for it, and its API needs the token."""
    return {
        "token": token,
        "larger": {f"{PLAYGROUND_API}/uploads": upload_bytes(settings)},
        "open_paths": ("/health", "/playground"),
    }


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(24)


async def _health(request: Request) -> Response:
    return Response("ok", media_type="text/plain")


async def _to_page(request: Request) -> Response:
    return RedirectResponse("/playground/")
