"""`NativeModel`: a packed folder that runs in C++, for text and for token ids.

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
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack, get_args, overload

import numpy as np

from bitnet_train.errors import ConfigError
from bitnet_train.packed.end_tokens import end_tokens
from bitnet_train.packed.manifest import Manifest
from bitnet_train.packed.names import CONFIG_NAME, GENERATION_NAME, MANIFEST_NAME
from bitnet_train.packed.reader import hash_file, read_manifest, verify_files
from bitnet_train.runtime.generation import Generation, GenerationKeywords, GenerationOptions, Sampling
from bitnet_train.runtime.messages import Prompt, read_prompts
from bitnet_train.runtime.native.architecture import Architecture, NotNative
from bitnet_train.runtime.native.arguments import choice_from, function_from, path_from, whole_number_from
from bitnet_train.runtime.native.context import Context, require_known_bias
from bitnet_train.runtime.native.engine import Engine
from bitnet_train.runtime.native.prompt_cache import PromptCache
from bitnet_train.runtime.native.streaming import pieces_of
from bitnet_train.runtime.native.support import fit, read_json
from bitnet_train.runtime.native.tokens import Tokens, read_tokens
from bitnet_train.runtime.native.weights import build
from bitnet_train.runtime.native.written import Written
from bitnet_train.runtime.settings import CacheDtype


class Options(GenerationKeywords, total=False):
    """The keywords of `NativeModel.generate`, which explains them."""

    stream: Callable[[str], object] | None
    prompt_cache: str | Path | None


class NativeModel:
    """A loaded model; make one with `NativeModel.load`."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        architecture: Architecture,
        core: Any,
        max_tokens: int,
        cache_dtype: str = "float32",
    ) -> None:
        self.folder, self.manifest, self.architecture = folder, manifest, architecture
        self.core, self.max_tokens, self.cache_dtype = core, max_tokens, cache_dtype
        self.stop_ids = _stop_ids(folder, manifest)
        sizes = architecture.sizes
        self._context = Context(sizes.vocab, sizes.max_positions, max_tokens, architecture.stated_positions)
        self._engine = Engine(core, max_tokens, self.stop_ids, cache_dtype)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        num_threads: int | None = None,
        verify: bool = True,
        max_tokens: int | None = None,
        cache_dtype: str = "float32",
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
        cache_dtype
            How keys and values are kept: `float32`, or `int8` with a scale for each token and head, in about a quarter
            of the memory; logits are no longer the very ones of the modules then.

        Raises
        ------
        FormatError
            When `path` is no packed folder, is damaged, or does not fit the native runtime (with the reason).
        ConfigError
            When `num_threads` or `max_tokens` is no whole number of at least 1, `path` no path, `cache_dtype` another.
        """
        folder = path_from("path", path)
        threads = whole_number_from("num_threads", num_threads, _num_cores())
        stored = choice_from("cache_dtype", cache_dtype, get_args(CacheDtype))
        manifest = verify_files(folder) if verify else read_manifest(folder)
        try:
            architecture = fit(folder, manifest)
        except NotNative as reason:
            raise NotNative(
                f"{folder} does not fit the native runtime: {reason}. `bitnet_train.load` computes it with torch."
            ) from reason
        core = build(folder, manifest, architecture, threads)
        most = architecture.sizes.max_positions
        tokens = min(whole_number_from("max_tokens", max_tokens, most), most)
        return cls(folder, manifest, architecture, core, tokens, stored)

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
        stream: Callable[[str], object] | None = None,
        prompt_cache: str | Path | None = None,
        **options: Unpack[GenerationKeywords],
    ) -> Generation | list[Generation]:
        """Continue a prompt, or several of them together, each exactly as it would be alone.

        Parameters
        ----------
        prompt
            The text to continue, or a chat: a list of messages, each with `role` and `content`; or several of them.
        stream
            Called with each piece of text as it comes; one prompt only.
        prompt_cache
            A file for the keys and values of the prompt: read if it is there, else written; one prompt only.
        options
            `max_new_tokens`, `temperature`, `seed`, ..., `chat`, `stop`: see `GenerationOptions`.

        Raises
        ------
        DataError
            When a prompt is empty, neither text nor chat, or longer with its new tokens than the model's context;
            nothing is computed then.
        ConfigError
            When a setting is out of range, or of another kind.
        FormatError
            When the prompt cache belongs to another model.
        """
        chosen, cache_path = GenerationOptions(**options), None
        if prompt_cache is not None:
            cache_path = path_from("prompt_cache", prompt_cache)
        function_from("stream", stream)
        asked, several = read_prompts(prompt, chat=chosen.chat)
        if several and (stream is not None or cache_path is not None):
            raise ConfigError("`stream` and `prompt_cache` go with one prompt, and several are given.")
        prompts = [self._prompt_ids(one, chosen) for one in asked]
        written = [Written(self.tokens.decode, chosen.stop, stream) for _ in prompts]
        if several and chosen.is_greedy and not chosen.is_penalised and not chosen.logit_bias:
            return self._engine.together(prompts, written, chosen.max_new_tokens)
        cache = None if cache_path is None else self._cache(cache_path)
        pairs = zip(prompts, written, strict=True)
        made = [self._engine.alone(token_ids, writer, chosen, cache) for token_ids, writer in pairs]
        return made if several else made[0]

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Iterator[str]:
        """Yield the pieces of text that `generate(prompt, **options)` would write, as they come.

        Ending the iteration early ends the computation. Raises what `generate` raises, at the first piece.
        """
        return pieces_of(lambda receive: self.generate(prompt, **{**options, "stream": receive}))

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
        chosen = Sampling(max_new_tokens=max_new_tokens, **sampling)
        prompt = self._context.check(token_ids, max_new_tokens)
        require_known_bias(chosen.logit_bias, self.architecture.sizes.vocab)
        ends = self.stop_ids if stop_ids is None else self._context.known(stop_ids)
        return self._engine.continue_ids(prompt, chosen, ends, function_from("on_token", on_token))

    def logits(self, token_ids: Sequence[int]) -> np.ndarray:
        """Return the logits after each of these tokens, float32 [L, vocab]. Raises DataError as `generate` does."""
        return self._engine.logits(self._context.check(token_ids))

    def memory_bytes(self) -> dict[str, int]:
        """Return the bytes that the model and the remembered prompt take, by what they are for."""
        return self._engine.memory_bytes()

    def kernels(self) -> dict[str, Any]:
        """Return which kernel computes what on this machine."""
        return self._engine.kernels()

    def forget(self) -> None:
        """Give back the memory of the remembered prompt."""
        self._engine.forget()

    def _prompt_ids(self, prompt: Prompt, options: GenerationOptions) -> list[int]:
        require_known_bias(options.logit_bias, self.architecture.sizes.vocab)
        token_ids = self.tokens.prompt_ids(prompt, options.chat_template_variables)
        return self._context.check(token_ids, options.max_new_tokens)

    def _cache(self, path: Path) -> PromptCache:
        return PromptCache(path, self.architecture, hash_file(self.folder / MANIFEST_NAME))


def _stop_ids(folder: Path, manifest: Manifest) -> tuple[int, ...]:
    """Return the end-of-text tokens of the generation settings, else of the config."""
    generation = read_json(folder / GENERATION_NAME) if GENERATION_NAME in manifest.files else {}
    return end_tokens(generation, read_json(folder / CONFIG_NAME))


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
