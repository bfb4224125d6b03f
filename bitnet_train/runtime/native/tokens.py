"""Text to token ids and back with the folder's `tokenizer.json`, by the `tokenizers` library that transformers wraps.

Importing transformers takes seconds and hundreds of megabytes, more than a small packed model. A folder whose
tokenizer is not in one `tokenizer.json` is read by transformers' AutoTokenizer all the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitnet_train.errors import DataError, FormatError
from bitnet_train.runtime.memory import give_back_free_memory
from bitnet_train.runtime.messages import Messages, Prompt
from bitnet_train.runtime.native.support import read_json
from bitnet_train.rust_panic import panics_as_errors
from bitnet_train.templates.render import render_chat, render_template

Variables = Mapping[str, Any]

_TOKENIZER = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Tokens(ABC):
    """Abstract: a tokenizer that encodes, decodes, and knows the model's chat format."""

    @abstractmethod
    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the ids of `text`; with `special`, what the model expects before and after a text is added."""

    @abstractmethod
    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out; an unfinished character is U+FFFD."""

    @abstractmethod
    def chat(self, messages: Messages, variables: Variables | None = None) -> str:
        """Return the prompt of a conversation; `variables` are given to the chat template. DataError without one."""

    @abstractmethod
    def shown(self, token_ids: Sequence[int]) -> str:
        """Return the text of ids with special tokens written out."""

    def prompt_ids(self, prompt: Prompt, variables: Variables | None = None) -> list[int]:
        """Return the ids that a model is given for a text, or for a chat; DataError where there are none."""
        is_text = isinstance(prompt, str)
        token_ids = self.encode(prompt if is_text else self.chat(prompt, variables), special=is_text)
        if not token_ids:
            raise DataError("The prompt is empty: there is nothing to continue. Give at least one character.")
        return token_ids


def read_tokens(folder: Path) -> Tokens:
    """Return the tokenizer of a packed folder.

    Raises FormatError when the folder has none, or it is damaged.
    """
    if not (folder / _SETTINGS).is_file():
        raise FormatError(f"{folder} was exported without a tokenizer. Give token ids, or its base model's tokenizer.")
    if not (folder / _TOKENIZER).is_file():
        from bitnet_train.runtime.load import load_tokenizer

        return TokensOfTransformers(load_tokenizer(folder))
    settings = read_json(folder / _SETTINGS)
    return _FastTokens(folder, settings)


class _FastTokens(Tokens):
    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._tokenizer = _read_tokenizer(folder / _TOKENIZER)
        self._template = _template(folder, settings)
        self._named = {name: text for name in _NAMED_TOKENS if (text := _token_text(settings.get(name))) is not None}

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def shown(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=False)

    def chat(self, messages: Messages, variables: Variables | None = None) -> str:
        if self._template is None:
            raise _no_template()
        return render_template(self._template, messages, {**self._named, **(variables or {})})


class TokensOfTransformers(Tokens):
    """By transformers; for tokenizers that are not in one file."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the ids of a text."""
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of ids."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def shown(self, token_ids: Sequence[int]) -> str:
        """Return the text of ids with special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def chat(self, messages: Messages, variables: Variables | None = None) -> str:
        """Return the prompt of a conversation."""
        if not self._tokenizer.chat_template:
            raise _no_template()
        return render_chat(self._tokenizer, messages, variables=variables)


def _read_tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        with panics_as_errors():
            tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exceptions
        raise FormatError(f"{path} cannot be read: {error}. Copy the folder again.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    give_back_free_memory()  # parsing took as much again as what it made
    return tokenizer


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the chat template: of its own file, or from the settings, of several the one called `default`."""
    path = folder / _TEMPLATE
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FormatError(f"{path} cannot be read: {error}. Copy the folder again.") from error
    given = settings.get("chat_template")
    if isinstance(given, list):
        named = {str(item.get("name")): item.get("template") for item in given if isinstance(item, dict)}
        given = named.get("default")
    return given if isinstance(given, str) else None


def _token_text(value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _no_template() -> DataError:
    return DataError("This tokenizer has no chat template. Use a chat model, or leave `chat` off.")
