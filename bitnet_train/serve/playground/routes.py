"""The addresses of the playground's API; each reads its request, asks the desk, and answers JSON."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bitnet_train.errors import BitnetTrainError
from bitnet_train.serve.guard import error_body
from bitnet_train.serve.playground import requests
from bitnet_train.serve.playground.desk import Desk
from bitnet_train.serve.playground.refusal import Refused
from bitnet_train.serve.playground.uploads import shown_name

Handler = Callable[[Request], Awaitable[Response]]
_STREAM = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Api:
    """The handlers, over one desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> list[Route]:
        """Return them with their addresses, relative to the API's."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/state", self.state),
            ("POST", "/models", self.add_model),
            ("GET", "/models/{id}", self.model),
            ("DELETE", "/models/{id}", self.remove_model),
            ("POST", "/models/{id}/reload", self.reload_model),
            ("POST", "/uploads", self.upload),
            ("POST", "/uploads/folder", self.begin_folder),
            ("POST", "/uploads/{upload}/done", self.finish_folder),
            ("PUT", "/uploads/{upload}/{name}", self.put_file),
            ("POST", "/jobs", self.add_job),
            ("GET", "/jobs/{id}", self.job),
            ("POST", "/jobs/{id}/cancel", self.cancel_job),
            ("GET", "/jobs/{id}/events", self.events),
            ("POST", "/recipes", self.add_recipe),
            ("GET", "/runs", self.runs),
            ("GET", "/runs/{id}", self.run),
        ]
        return [Route(path, handler, methods=[method]) for method, path, handler in table]

    async def state(self, request: Request) -> Response:
        """All that there is."""
        runs = await asyncio.to_thread(self._desk.runs.listed)
        return JSONResponse({**self._desk.state(), "runs": runs})

    async def add_model(self, request: Request) -> Response:
        """Open a model by a word."""
        asked = await requests.read(request, requests.NewModel)
        return JSONResponse((await self._desk.open_model(asked.source)).to_dict(), 201)

    async def model(self, request: Request) -> Response:
        """One model."""
        return JSONResponse(self._desk.models.get(request.path_params["id"]).to_dict())

    async def remove_model(self, request: Request) -> Response:
        """Close one."""
        await self._desk.close_model(request.path_params["id"])
        return Response(status_code=204)

    async def reload_model(self, request: Request) -> Response:
        """Start its process again."""
        return JSONResponse((await self._desk.models.reload(request.path_params["id"])).to_dict())

    async def upload(self, request: Request) -> Response:
        """Take a GGUF file, and open it."""
        self._desk.models.require_room()
        name = shown_name(request.query_params.get("name", ""), "uploaded.gguf")
        folder, path, size = await self._desk.uploads.gguf(request.stream(), _announced(request))
        model = await self._desk.models.add(str(path), name, size, folder)
        return JSONResponse(model.to_dict(), 201)

    async def begin_folder(self, request: Request) -> Response:
        """Announce the files of a folder."""
        self._desk.models.require_room()
        asked = await requests.read(request, requests.NewFolder)
        sizes = {file.name: file.bytes for file in asked.files}
        return JSONResponse({"upload": self._desk.uploads.begin(shown_name(asked.name, "folder"), sizes)}, 201)

    async def put_file(self, request: Request) -> Response:
        """Take one of them."""
        names = request.path_params
        size = await self._desk.uploads.put(names["upload"], names["name"], request.stream())
        return JSONResponse({"name": names["name"], "bytes": size}, 201)

    async def finish_folder(self, request: Request) -> Response:
        """Open a folder that has come whole."""
        self._desk.models.require_room()
        folder, name, size = self._desk.uploads.finish(request.path_params["upload"])
        return JSONResponse((await self._desk.models.add(str(folder), name, size, folder)).to_dict(), 201)

    async def add_job(self, request: Request) -> Response:
        """Queue a job."""
        asked = requests.job_of(await requests.read_object(request))
        return JSONResponse((await self._desk.start_job(asked)).to_dict(), 201)

    async def job(self, request: Request) -> Response:
        """One job."""
        return JSONResponse(self._desk.jobs.get(request.path_params["id"]).to_dict())

    async def cancel_job(self, request: Request) -> Response:
        """Have it end."""
        return JSONResponse((await self._desk.cancel_job(request.path_params["id"])).to_dict())

    async def events(self, request: Request) -> Response:
        """What it says, from where the page was."""
        log = self._desk.jobs.get(request.path_params["id"]).log
        after = _whole(request.headers.get("last-event-id") or request.query_params.get("after") or "0")

        async def stream() -> AsyncIterator[str]:
            async for event in log.follow(after):
                yield ": nothing new\n\n" if event is None else event.as_stream()

        return StreamingResponse(stream(), media_type="text/event-stream", headers=_STREAM)

    async def add_recipe(self, request: Request) -> Response:
        """Keep a choice as a recipe."""
        asked = await requests.read(request, requests.NewRecipe)
        return JSONResponse(self._desk.save_recipe(asked), 201)

    async def runs(self, request: Request) -> Response:
        """All runs."""
        return JSONResponse(await asyncio.to_thread(self._desk.runs.listed))

    async def run(self, request: Request) -> Response:
        """One run with its curve."""
        return JSONResponse(await asyncio.to_thread(self._desk.runs.told, request.path_params["id"]))

    async def refused(self, request: Request, error: Exception) -> Response:
        """Answer what was refused."""
        assert isinstance(error, Refused)
        body = error_body(self._desk.names.clean(error.message), error.kind, code=error.code, param=error.param)
        return JSONResponse(body, error.status)

    async def failed(self, request: Request, error: Exception) -> Response:
        """Answer an error of the library, without the places that it names."""
        return JSONResponse(error_body(self._desk.names.clean(str(error)), "invalid_request_error"), 400)

    async def no_address(self, request: Request, error: Exception) -> Response:
        """Answer an address that is none, or a method that it has not."""
        assert isinstance(error, HTTPException)
        body = error_body(f"{request.method} of this address: {error.detail}.", "invalid_request_error")
        return JSONResponse(body, error.status_code, headers=error.headers)

    async def gone(self, request: Request, error: Exception) -> Response:
        """Answer nobody: the client has left."""
        return Response(status_code=499)

    async def broken(self, request: Request, error: Exception) -> Response:
        """Answer what was not expected; what it was stands on the terminal alone."""
        traceback.print_exception(error, file=sys.stderr)
        return JSONResponse(
            error_body("Something unexpected happened; the server's terminal says what.", "server_error"), 500
        )

    def handlers(self) -> dict[Any, Any]:
        """Return who answers which error."""
        return {
            Refused: self.refused,
            BitnetTrainError: self.failed,
            HTTPException: self.no_address,
            ClientDisconnect: self.gone,
            Exception: self.broken,
        }


def _announced(request: Request) -> int | None:
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Refused(400, "`after` and `Last-Event-ID` are whole numbers.", "after")
    return int(text)
