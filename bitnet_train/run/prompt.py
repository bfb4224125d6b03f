"""What `generate` and the texts of a run continue, and how: the prompt or the chat, and the sampling."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from bitnet_train.config import Config
from bitnet_train.runtime.generation import GenerationKeywords, GenerationOptions
from bitnet_train.runtime.messages import conversation, read_messages

_OF_TRAINING = "chat_template_variables"


def asked(config: Config) -> str | list[dict[str, Any]]:
    """Return the text to continue, or the messages of a chat."""
    settings = config.generate
    if settings.messages is None and not settings.chat:
        return settings.prompt
    history = read_messages(Path(settings.messages)) if settings.messages is not None else []
    return conversation(settings.prompt, settings.system, history)


def sampling(config: Config) -> GenerationKeywords:
    """Return the keywords of either engine's `generate` that the configuration sets.

    A chat is written as in training: with the same variables of its template.
    """
    names = (field.name for field in fields(GenerationOptions) if field.name != _OF_TRAINING)
    chosen = {name: getattr(config.generate, name) for name in names}
    return cast(GenerationKeywords, {**chosen, _OF_TRAINING: config.data.chat_template_variables})
