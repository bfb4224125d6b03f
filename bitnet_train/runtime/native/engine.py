"""The C++ model behind a lock: one call computes at a time and others wait; prompts continue alone, or all together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bitnet_train.runtime.generation import Generation, Sampling
from bitnet_train.runtime.native.batch import Row, continue_greedily
from bitnet_train.runtime.native.prompt_cache import PromptCache
from bitnet_train.runtime.native.remembered import Remembered
from bitnet_train.runtime.native.written import Written


class Engine:
    """A finished `_core.Model`, the text it remembers, and the end-of-text tokens. Prompts are checked (`context`)."""

    def __init__(self, core: Any, max_tokens: int, stop_ids: Sequence[int], cache_dtype: str) -> None:
        self._core, self._max_tokens, self._stop_ids, self._cache_dtype = core, max_tokens, stop_ids, cache_dtype
        self._lock = threading.Lock()
        self.remembered = Remembered(core, max_tokens, cache_dtype)

    def new_sequence(self) -> Any:
        """Return a sequence that has read nothing."""
        return self._core.new_sequence(self._max_tokens, self._cache_dtype)

    def logits(self, prompt: list[int]) -> np.ndarray:
        """Return the logits after each token, float32 [L, vocab]."""
        with self._lock:
            return self._core.forward([self.new_sequence()], [np.asarray(prompt, np.int32)], True)

    def continue_ids(
        self,
        prompt: list[int],
        sampling: Sampling,
        stop_ids: Sequence[int],
        on_token: Callable[[int], object] | None,
    ) -> list[int]:
        """Return the ids that continue a prompt."""
        with self._lock:
            return self.remembered.go_on(prompt, sampling, stop_ids, on_token)

    def alone(self, prompt: list[int], written: Written, sampling: Sampling, cache: PromptCache | None) -> Generation:
        """Continue one prompt, from what is remembered or lies in the cache."""
        start, ends = time.perf_counter(), set(self._stop_ids)

        def on_token(token_id: int) -> bool:
            return token_id not in ends and written.push(token_id)

        with self._lock:
            if cache is not None:
                cache.recall(self.remembered, prompt)
            token_ids = self.remembered.go_on(prompt, sampling, self._stop_ids, on_token)
            if cache is not None:
                cache.keep(self.remembered, prompt)
        return Generation(written.finish(), token_ids, len(prompt), time.perf_counter() - start)

    def together(self, prompts: list[list[int]], written: list[Written], max_new_tokens: int) -> list[Generation]:
        """Continue several prompts greedily, one step of the model for all of them."""
        start = time.perf_counter()
        rows = [Row(prompt, writer, self.new_sequence()) for prompt, writer in zip(prompts, written, strict=True)]
        with self._lock:
            continue_greedily(self._core, rows, max_new_tokens, frozenset(self._stop_ids))
        seconds = time.perf_counter() - start
        return [Generation(row.written.finish(), row.token_ids, len(row.prompt), seconds) for row in rows]

    def memory_bytes(self) -> dict[str, int]:
        """Return the bytes that the model and the remembered text take, by what they are for."""
        return {**self._core.memory_bytes(), "kv_cache": self.remembered.sequence.bytes}

    def kernels(self) -> dict[str, Any]:
        """Return which kernel computes what on this machine."""
        return dict(self._core.kernels())

    def forget(self) -> None:
        """Give back the memory of the remembered text."""
        with self._lock:
            self.remembered.forget()
