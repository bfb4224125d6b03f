"""Greedy continuation of token ids by either engine, behind one function type.

Both engines are given the same ids by the same tokenizer, so what differs afterwards is the model and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.runtime.generate import continue_ids
from bitnet_train.runtime.generation import Sampling
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.runtime.native.support import reason_against
from bitnet_train.runtime.native.written import Written

Write = Callable[[list[int], int, Sequence[str]], "Continuation"]  # prompt ids, new tokens at most, stop strings


@dataclass(frozen=True)
class Continuation:
    """What was written: text, its token ids, whether it came to an end by itself, and the seconds it took."""

    text: str
    token_ids: list[int]
    ended: bool
    seconds: float


@dataclass(frozen=True)
class Writer:
    """A model that continues token ids: how, and by which engine."""

    write: Write
    engine: str


def torch_writer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Writer:
    """Return the writer of a Hugging Face causal LM."""

    def write(prompt: list[int], max_new_tokens: int, stop: Sequence[str]) -> Continuation:
        written, start = Written(_decoder(tokenizer), stop), time.perf_counter()
        token_ids = continue_ids(model, tokenizer, prompt, written, Sampling(max_new_tokens=max_new_tokens))
        return _continuation(written, token_ids, max_new_tokens, start)

    return Writer(write, "torch")


def native_writer(model: NativeModel, tokenizer: PreTrainedTokenizerBase) -> Writer:
    """Return the writer of the native runtime."""

    def write(prompt: list[int], max_new_tokens: int, stop: Sequence[str]) -> Continuation:
        written, start, ends = Written(_decoder(tokenizer), stop), time.perf_counter(), set(model.stop_ids)

        def on_token(token_id: int) -> bool:
            return token_id not in ends and written.push(token_id)

        token_ids = model.generate_ids(prompt, max_new_tokens, on_token=on_token)
        return _continuation(written, token_ids, max_new_tokens, start)

    return Writer(write, "native")


def packed_writer(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, num_threads: int | None = None
) -> Writer:
    """Return the native writer of a packed folder where it fits, else that of `model`, the same folder in torch."""
    if reason_against(folder) is not None:
        return torch_writer(model, tokenizer)
    return native_writer(NativeModel.load(folder, num_threads=num_threads, verify=False), tokenizer)


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Any:
    return lambda token_ids: str(tokenizer.decode(list(token_ids), skip_special_tokens=True))


def _continuation(written: Written, token_ids: list[int], max_new_tokens: int, start: float) -> Continuation:
    text = written.finish()
    return Continuation(
        text, token_ids, written.stopped or len(token_ids) < max_new_tokens, time.perf_counter() - start
    )
