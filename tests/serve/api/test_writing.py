"""Requests and workers that do not do their part: hung, gone, too many."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.serve.api.answers import CompletionAnswer
from bitnet_train.serve.api.errors import ApiError
from bitnet_train.serve.api.hand import Start
from bitnet_train.serve.api.metrics import Counters, metrics_text
from bitnet_train.serve.api.models import Models
from bitnet_train.serve.api.writing import Bounds, Job, Writer
from bitnet_train.serve.child import Limits

Work = Callable[[Models, Writer], Coroutine[Any, Any, None]]


@asynccontextmanager
async def writing(folder: Path, log: Path, **bounds: Any) -> AsyncIterator[tuple[Models, Writer]]:
    argument = {"model": {"source": str(folder), "threads": 1}}
    models = Models({"m": Start(argument, Limits(), log)}, 1)
    try:
        yield models, Writer(models, Bounds(**{"most_texts": 4, "most_seconds": 60.0, **bounds}), Counters())
    finally:
        await models.close()


def job(texts: int = 1, new_tokens: int = 4) -> Job:
    text = {"do": "write", "prompt": "x", "max_new_tokens": new_tokens, "ignore_end": True}
    return Job("m", [text] * texts, texts, CompletionAnswer("m"), False, False)


async def write(writer: Writer, wanted: Job) -> list[Any]:
    return [event async for event in writer.events(wanted)]


@pytest.mark.slow
def test_a_worker_that_hangs_is_given_up_and_another_answers(pretrained_folder: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with writing(pretrained_folder, tmp_path / "log", most_seconds=20.0, grace_seconds=-10.0) as (
            models,
            writer,
        ):
            await write(writer, job())
            worker = models.loaded["m"].pid
            os.kill(worker, signal.SIGSTOP)
            with pytest.raises(ApiError) as caught:
                await write(writer, job())
            assert (caught.value.status, caught.value.code) == (503, "timeout")
            while not models.loaded["m"].gone:
                await asyncio.sleep(0.01)
            assert (await write(writer, job()))[-1]["is"] == "done"
            assert models.loaded["m"].pid != worker

    asyncio.run(run())


def test_texts_beyond_the_bound_are_told_to_ask_again(pretrained_folder: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with writing(pretrained_folder, tmp_path / "log") as (models, writer):
            first = asyncio.ensure_future(write(writer, job(3, 400)))
            while not models.loaded or not models.loaded["m"].num_texts:
                await asyncio.sleep(0.01)
            with pytest.raises(ApiError) as caught:
                await write(writer, job(2))
            assert (caught.value.status, caught.value.retry_after) == (429, 1)
            assert caught.value.response().headers["retry-after"] == "1"
            with pytest.raises(ApiError) as never:
                await write(writer, job(5))
            assert never.value.status == 400
            first.cancel()
            await asyncio.wait({first})
            assert models.loaded["m"].num_texts == 0
            assert len(await write(writer, job(4))) >= 4
            assert "bitnet_train_queue_full_total 1" in metrics_text(writer.counters, models)

    asyncio.run(run())


def test_nothing_is_started_once_the_server_is_ending(pretrained_folder: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with writing(pretrained_folder, tmp_path / "log") as (models, writer):
            loading = asyncio.ensure_future(write(writer, job()))
            await asyncio.sleep(0.05)
            await models.close()
            for wanted in (loading, write(writer, job())):
                with pytest.raises(ApiError, match="shutting down"):
                    await wanted

    asyncio.run(run())
