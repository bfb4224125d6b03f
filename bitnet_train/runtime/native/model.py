"""`NativeModel`: a packed folder of the Llama family that runs in C++, for text and for token ids.

    model = NativeModel.load("artefact")
    print(model.generate("def main(").text)
    for piece in model.stream("Once upon a time", temperature=0.8, seed=1): ...
    model.generate(["one prompt", "another"])            one step of the model for all of them
    model.generate([{"role": "user", "content": "hi"}])  a chat

Every call that continues a prompt starts from what the model still knows: the keys and values of the longest beginning
that the prompt shares with the one before it are kept, and only the rest is computed. They are the same numbers either
way, because a token's keys depend on the tokens before it alone. `prompt_cache=FILE` keeps them in a file.

Results depend on neither the number of threads nor on what else is in a batch. One call computes at a time; others
wait. Of the folder's generation settings only the end-of-text tokens are read: what you give is what is used.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import numpy as np

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.packed.end_tokens import end_tokens
from bitnet_train.packed.manifest import Manifest
from bitnet_train.packed.names import CONFIG_NAME, MANIFEST_NAME
from bitnet_train.packed.reader import hash_file, read_manifest, verify_files
from bitnet_train.runtime.generation import Generation, Sampling
from bitnet_train.runtime.messages import Prompt, read_prompts
from bitnet_train.runtime.native.architecture import Architecture, NotNative
from bitnet_train.runtime.native.batch import Row, continue_greedily
from bitnet_train.runtime.native.prompt_cache import CachedPrompt, common_length, read_prompt, write_prompt
from bitnet_train.runtime.native.support import fit, read_json
from bitnet_train.runtime.native.tokens import Tokens, read_tokens
from bitnet_train.runtime.native.weights import build
from bitnet_train.runtime.native.written import Written

_GENERATION_CONFIG = "generation_config.json"


class Options(TypedDict, total=False):
    """The keywords of `NativeModel.generate`, which explains them."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    chat: bool
    chat_template_variables: Mapping[str, Any] | None
    stop: Sequence[str]
    stream: Callable[[str], object] | None
    prompt_cache: str | Path | None


class NativeModel:
    """A loaded model; make one with `NativeModel.load`."""

    def __init__(
        self, folder: Path, manifest: Manifest, architecture: Architecture, core: Any, max_tokens: int
    ) -> None:
        self.folder, self.manifest, self.architecture = folder, manifest, architecture
        self.max_tokens = max_tokens
        self.stop_ids = _stop_ids(folder, manifest)
        self._core = core
        self._lock = threading.Lock()
        self._sequence = core.new_sequence(max_tokens)
        self._known: list[int] = []  # the tokens whose keys and values `_sequence` holds

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        num_threads: int | None = None,
        verify: bool = True,
        max_tokens: int | None = None,
    ) -> NativeModel:
        """Load the packed folder at `path`.

        Parameters
        ----------
        path
            A folder that `export` wrote.
        num_threads
            Threads that compute; None takes every core of this process.
        verify
            Check the hash of every file first.
        max_tokens
            The most tokens of a prompt and its continuation together; None, or more than the model's context, is the
            model's context. Memory is taken as a text grows, not ahead.

        Raises
        ------
        FormatError
            When `path` is no packed folder, is damaged, or does not fit the native runtime (with the reason).
        ConfigError
            When `num_threads` or `max_tokens` is below 1.
        """
        folder = Path(path)
        threads = _at_least_1("num_threads", num_threads, _num_cores())
        manifest = verify_files(folder) if verify else read_manifest(folder)
        try:
            architecture = fit(folder, manifest)
        except NotNative as reason:
            raise NotNative(
                f"{folder} does not fit the native runtime: {reason}. `bitnet_train.load` computes it with torch."
            ) from reason
        core = build(folder, manifest, architecture, threads)
        context = min(_at_least_1("max_tokens", max_tokens, architecture.max_positions), architecture.max_positions)
        return cls(folder, manifest, architecture, core, context)

    @cached_property
    def tokens(self) -> Tokens:
        """The tokenizer, read on first use; FormatError when the folder has none."""
        return read_tokens(self.folder)

    @overload
    def generate(self, prompt: Prompt, **options: Unpack[Options]) -> Generation: ...

    @overload
    def generate(self, prompt: list[Prompt] | tuple[Prompt, ...], **options: Unpack[Options]) -> list[Generation]: ...

    def generate(
        self,
        prompt: Prompt | list[Prompt] | tuple[Prompt, ...],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        seed: int = 0,
        chat: bool = False,
        chat_template_variables: Mapping[str, Any] | None = None,
        stop: Sequence[str] = (),
        stream: Callable[[str], object] | None = None,
        prompt_cache: str | Path | None = None,
    ) -> Generation | list[Generation]:
        """Continue a prompt, or several of them together, each exactly as it would be alone.

        Parameters
        ----------
        prompt
            The text to continue, or a chat: a list of messages, each with `role` and `content`; or several of them.
        max_new_tokens
            The most tokens to add; an end-of-text token or a stop string ends earlier.
        temperature, top_k, top_p, min_p, seed
            See `Sampling`.
        chat
            Treat a text as a user's message and wrap it in the model's chat template, as a chat always is.
        chat_template_variables
            What the chat template is given beside the messages, as it was in training.
        stop
            Strings that end the text, which then ends before them. They may begin and end inside tokens.
        stream
            Called with each piece of text as it comes; one prompt only.
        prompt_cache
            A file for the keys and values of the prompt: read if it is there, else written; one prompt only.

        Raises
        ------
        DataError
            When a prompt is empty, neither text nor chat, or longer with its new tokens than the model's context;
            nothing is computed then.
        ConfigError
            When a setting is out of range.
        FormatError
            When the prompt cache belongs to another model.
        """
        sampling = Sampling(temperature, top_k, top_p, min_p, seed)
        asked, several = read_prompts(prompt, chat=chat)
        if several and (stream is not None or prompt_cache is not None):
            raise ConfigError("`stream` and `prompt_cache` go with one prompt, and several are given.")
        prompts = [self._checked(self.tokens.prompt_ids(one, chat_template_variables), max_new_tokens) for one in asked]
        written = [Written(self.tokens.decode, stop, stream) for _ in prompts]
        if several and sampling.is_greedy:
            return self._together(prompts, written, max_new_tokens)
        cache = None if prompt_cache is None else Path(prompt_cache)
        made = [
            self._alone(token_ids, writer, max_new_tokens, sampling, cache)
            for token_ids, writer in zip(prompts, written, strict=True)
        ]
        return made if several else made[0]

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Iterator[str]:
        """Yield the pieces of text that `generate(prompt, **options)` would write, as they come.

        Ending the iteration early ends the computation. Raises what `generate` raises, at the first piece.
        """
        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        ended = threading.Event()

        def receive(piece: str) -> None:
            if ended.is_set():
                raise _ReaderLeft
            pieces.put(piece)

        def write() -> None:
            try:
                self.generate(prompt, **{**options, "stream": receive})
            except BaseException as error:  # handed to the reader, who raises it
                pieces.put(error)
            pieces.put(None)

        writer = threading.Thread(target=write, name="bitnet-train stream", daemon=True)
        writer.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            ended.set()
            writer.join()

    def generate_ids(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int = 128,
        *,
        stop_ids: Sequence[int] | None = None,
        on_token: Callable[[int], object] | None = None,
        **sampling: Any,
    ) -> list[int]:
        """Continue token ids by token ids; keywords are those of `Sampling`.

        `stop_ids` None takes the model's end-of-text tokens, () none; one that comes is the last id returned.
        `on_token` is called with each id; if it returns True, the continuation ends there. Raises what `generate`
        raises.
        """
        prompt = self._checked([int(token_id) for token_id in token_ids], max_new_tokens)
        ends = self.stop_ids if stop_ids is None else stop_ids
        with self._lock:
            return self._continue(prompt, max_new_tokens, Sampling(**sampling), ends, on_token)

    def logits(self, token_ids: Sequence[int]) -> np.ndarray:
        """Return the logits after each of these tokens, float32 [L, vocab]. Raises DataError as `generate` does."""
        prompt = self._checked([int(token_id) for token_id in token_ids], 0)
        with self._lock:
            sequence = self._core.new_sequence(self.max_tokens)
            return self._core.forward([sequence], [np.asarray(prompt, np.int32)], True)

    def memory_bytes(self) -> dict[str, int]:
        """Return the bytes that the model and the remembered prompt take, by what they are for."""
        return {**self._core.memory_bytes(), "kv_cache": self._sequence.bytes}

    def kernels(self) -> dict[str, Any]:
        """Return which kernel computes what on this machine."""
        return dict(self._core.kernels())

    def forget(self) -> None:
        """Give back the memory of the remembered prompt."""
        with self._lock:
            self._sequence.truncate(0)
            self._known = []

    def _alone(
        self, prompt: list[int], written: Written, max_new_tokens: int, sampling: Sampling, cache: Path | None
    ) -> Generation:
        start = time.perf_counter()
        ends = set(self.stop_ids)
        with self._lock:
            if cache is not None:
                self._recall(cache, prompt)

            def on_token(token_id: int) -> bool:
                return token_id not in ends and written.push(token_id)

            token_ids = self._continue(prompt, max_new_tokens, sampling, self.stop_ids, on_token)
            if cache is not None:
                self._remember(cache, prompt)
        return Generation(written.finish(), token_ids, len(prompt), time.perf_counter() - start)

    def _together(self, prompts: list[list[int]], written: list[Written], max_new_tokens: int) -> list[Generation]:
        start = time.perf_counter()
        rows = [
            Row(prompt, writer, self._core.new_sequence(self.max_tokens))
            for prompt, writer in zip(prompts, written, strict=True)
        ]
        with self._lock:
            continue_greedily(self._core, rows, max_new_tokens, frozenset(self.stop_ids))
        seconds = time.perf_counter() - start
        return [Generation(row.written.finish(), row.token_ids, len(row.prompt), seconds) for row in rows]

    def _continue(
        self,
        prompt: list[int],
        max_new_tokens: int,
        sampling: Sampling,
        stop_ids: Sequence[int],
        on_token: Callable[[int], object] | None,
    ) -> list[int]:
        """Continue a checked prompt on the remembered sequence; the lock is held."""
        keep = min(common_length(self._known, prompt), len(prompt) - 1)
        self._sequence.truncate(keep)
        made: list[int] = []

        def ends(token_id: int) -> bool:
            made.append(token_id)
            return on_token is not None and on_token(token_id) is True

        try:
            self._core.generate(
                self._sequence,
                np.asarray(prompt[keep:], np.int32),
                max_new_tokens=max_new_tokens,
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                min_p=sampling.min_p,
                seed=sampling.seed % (1 << 64),
                stop_ids=[int(token_id) for token_id in stop_ids],
                on_token=ends,
            )
        finally:
            self._known = [*prompt, *made][: self._sequence.length]
        return made

    def _recall(self, path: Path, prompt: list[int]) -> None:
        """Take a prompt's keys and values from a file, if it holds more of this prompt than is remembered."""
        if not path.is_file():
            return
        cached = read_prompt(path, self.architecture, _identity(self.folder))
        shared = common_length(cached.token_ids, prompt)
        if shared > common_length(self._known, prompt) and len(cached.token_ids) <= self.max_tokens:
            self._sequence.load(cached.keys, cached.values)
            self._known = cached.token_ids

    def _remember(self, path: Path, prompt: list[int]) -> None:
        """Write the keys and values of `prompt` to a file, unless it holds them."""
        identity = _identity(self.folder)
        if path.is_file() and read_prompt(path, self.architecture, identity).token_ids[: len(prompt)] == prompt:
            return
        sequence = self._sequence.copy()
        sequence.truncate(min(len(prompt), sequence.length))
        keys, values = sequence.keys_values()
        write_prompt(path, CachedPrompt(prompt[: sequence.length], keys, values), identity)

    def _checked(self, token_ids: list[int], max_new_tokens: int) -> list[int]:
        """Return the ids if they are known to the model and fit its context with the new ones."""
        if not token_ids:
            raise DataError("There are no token ids: nothing to continue. Give at least one.")
        vocab = self.architecture.vocab
        wrong = next((token_id for token_id in token_ids if not 0 <= token_id < vocab), None)
        if wrong is not None:
            raise DataError(f"Token id {wrong} is not one of this model, which knows 0 to {vocab - 1}.")
        _at_least_1("max_new_tokens", max_new_tokens or 1, 1)
        if len(token_ids) + max_new_tokens > self.max_tokens:
            limit = "this model's context" if self.max_tokens == self.architecture.max_positions else "`max_tokens`"
            raise DataError(
                f"The prompt has {len(token_ids)} tokens and `max_new_tokens` is {max_new_tokens}, together "
                f"{len(token_ids) + max_new_tokens}, but {limit} is {self.max_tokens} tokens. Shorten the prompt, or "
                "ask for fewer new tokens."
            )
        return token_ids


class _ReaderLeft(Exception):
    """Ends a computation whose stream nobody reads any more."""


def _stop_ids(folder: Path, manifest: Manifest) -> tuple[int, ...]:
    """Return the end-of-text tokens of the generation settings, else of the config."""
    generation = read_json(folder / _GENERATION_CONFIG) if _GENERATION_CONFIG in manifest.files else {}
    return end_tokens(generation, read_json(folder / CONFIG_NAME))


def _identity(folder: Path) -> str:
    return hash_file(folder / MANIFEST_NAME)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _at_least_1(name: str, value: int | None, default: int) -> int:
    if value is None:
        return default
    if type(value) is not int or value < 1:
        raise ConfigError(f"`{name}={value}` is out of range: it must be a whole number, 1 or more.")
    return value
