"""The end of a run: one prompt continued by the original and by the packed model, and how fast both write."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from bitnet_train.bench.decode_speed import original_speed
from bitnet_train.config import Config
from bitnet_train.errors import DataError
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.prompt import asked, sampling
from bitnet_train.run.result import BothContinued, Continuations, DecodeSpeeds
from bitnet_train.run.session import Session
from bitnet_train.runtime.generate import generate as continue_prompt
from bitnet_train.runtime.load import load_tokenizer

Result = TypeVar("Result")


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """Return what a call gives, and its seconds."""
    start = time.perf_counter()
    made = call()
    return made, time.perf_counter() - start


def continue_both(config: Config, directory: RunDirectory, session: Session, evaluated: EvaluateFacts) -> BothContinued:
    """Continue one prompt with the original and the packed model, alike, and tell how fast both are."""
    original, prompt = session.original(), config.generate.prompt
    by_original = continue_prompt(original.model, original.tokenizer, asked(config), **sampling(config))
    speed = evaluated.decode_original or original_speed(original.model, original.tokenizer(prompt)["input_ids"])
    assert evaluated.decode is not None, "`evaluate` times the packed model"
    return BothContinued(
        prompt,
        Continuations(full_precision=by_original.text, packed=_packed_text(config, directory, session)),
        DecodeSpeeds(full_precision=speed, packed=evaluated.decode),
    )


def _packed_text(config: Config, directory: RunDirectory, session: Session) -> str:
    """Continue the prompt as `generate` will: natively, where the architecture and the length allow it."""
    folder, native = directory.artefact, session.native(directory.artefact)
    if native is not None:
        with suppress(DataError):  # longer than the context
            return native.generate(asked(config), **sampling(config)).text
    return continue_prompt(session.packed(folder), load_tokenizer(folder), asked(config), **sampling(config)).text
