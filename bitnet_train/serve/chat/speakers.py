"""The engines behind a chat: the native runtime where a packed folder fits it, torch for it and for everything else.

The native runtime keeps keys and values of the conversation, so each question costs its own tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.importers.found import find_model
from bitnet_train.runtime.generation import Sampling
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.runtime.native.support import reason_against, require_native_cache
from bitnet_train.serve.chat.conversation import Message
from bitnet_train.serve.chat.speaker import Speaker, Watched
from bitnet_train.word_as_path import is_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Engine = Literal["auto", "native", "hf"]
Variables = Mapping[str, Any] | None
_NO_LIMIT = 1 << 30
_GGUF_OF_EXPORT = "model.gguf"  # as `exporters.gguf` calls it, which imports torch
_NO_TEMPLATE = (
    "{name} has no chat template, so it cannot be asked. `bitnet-train generate` continues plain text with it; a model "
    "whose tokenizer has a template (its file chat_template.jinja) can be talked to."
)


class _Native(Speaker):
    """A packed folder in C++."""

    engine = "native"

    def __init__(self, name: str, model: NativeModel, variables: Variables) -> None:
        self.name, self.context = name, model.max_tokens
        self._model, self._variables = model, variables
        self._ends = frozenset(model.stop_ids)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        return self._model.tokens.prompt_ids(messages, self._variables)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._model.tokens.decode(token_ids)

    def go_on(self, prompt: list[int], sampling: Sampling, written: Watched) -> list[int]:
        def on_token(token_id: int) -> bool:
            written.came()
            return token_id not in self._ends and written.push(token_id)

        chosen = {field.name: getattr(sampling, field.name) for field in fields(Sampling)}
        return self._model.generate_ids(prompt, on_token=on_token, **chosen)


class _Torch(Speaker):
    """Any causal LM of transformers."""

    engine = "torch"

    def __init__(
        self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, variables: Variables
    ) -> None:
        from bitnet_train.model.config_fields import max_positions

        self.name, self.context = name, max_positions(model) or _NO_LIMIT
        self._model, self._tokenizer, self._variables = model, tokenizer, variables

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        from bitnet_train.templates.render import render_chat

        text = render_chat(self._tokenizer, messages, variables=self._variables)
        token_ids = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        if not token_ids:
            raise DataError("The chat template of this model wrote nothing, so there is nothing to answer.")
        return token_ids

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def go_on(self, prompt: list[int], sampling: Sampling, written: Watched) -> list[int]:
        from bitnet_train.runtime.generate import continue_ids

        return continue_ids(self._model, self._tokenizer, prompt, written, sampling)


@dataclass(frozen=True)
class Opening:
    """How models are opened: the variables of their chat templates, what computes, and what torch is told first."""

    variables: Variables = None
    engine: Engine = "auto"
    threads: int | None = None
    prepare_torch: Callable[[], object] = lambda: None
    cache_dtype: str = "float32"


def open_packed(folder: Path, name: str, how: Opening) -> Speaker:
    """Load a packed folder. Raises ConfigError where `generate.engine=native` and it does not fit."""
    reason = "`generate.engine=hf`" if how.engine == "hf" else reason_against(folder)
    if reason is not None and how.engine == "native":
        raise ConfigError(f"`generate.engine=native`: {folder} does not fit: {reason}. Set it to auto or hf.")
    if reason is None:
        return _asked(
            _Native(name, NativeModel.load(folder, num_threads=how.threads, cache_dtype=how.cache_dtype), how.variables)
        )
    require_native_cache(how.cache_dtype, folder, reason)
    how.prepare_torch()
    from bitnet_train.runtime.load import load, load_tokenizer

    return _asked(_Torch(name, load(folder), load_tokenizer(folder), how.variables))


def open_source(source: str, name: str, how: Opening) -> Speaker:
    """Load whatever names a model, as `model.source` does: a packed folder as above, all else by torch."""
    found = find_model(source)
    if found.kind == "export" and is_file(found.path / _GGUF_OF_EXPORT):
        source = str(found.path / _GGUF_OF_EXPORT)
    if found.kind == "packed":
        return open_packed(found.path, name, how)
    if how.engine == "native":
        raise ConfigError(
            f"`generate.engine=native` computes packed folders, and {source} is none. Pack it first "
            f"(`bitnet-train import`, `bitnet-train run`), or leave the key out."
        )
    require_native_cache(how.cache_dtype, source, "it is no packed folder")
    how.prepare_torch()
    from bitnet_train.importers.load import load_pretrained

    loaded = load_pretrained(source)
    return _asked(_Torch(name, loaded.model, loaded.tokenizer, how.variables))


def _asked(speaker: Speaker) -> Speaker:
    """Return a speaker that can be asked something. Raises DataError for one without a chat template."""
    try:
        speaker.prompt([{"role": "user", "content": "hi"}])
    except (DataError, ValueError) as error:
        if "no chat template" in str(error) or "chat_template" in str(error):
            raise DataError(_NO_TEMPLATE.format(name=speaker.name)) from error
        raise
    return speaker
