"""What `generate` and the texts of a run continue, and how: the prompt or the chat, and the sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitnet_train.config import Config
from bitnet_train.runtime.messages import conversation, read_messages


def asked(config: Config) -> str | list[dict[str, Any]]:
    """Return the text to continue, or the messages of a chat."""
    settings = config.generate
    if settings.messages is None and not settings.chat:
        return settings.prompt
    history = read_messages(Path(settings.messages)) if settings.messages is not None else []
    return conversation(settings.prompt, settings.system, history)


def sampling(config: Config) -> dict[str, Any]:
    """Return the arguments of either engine's `generate` that the configuration sets besides the prompt.

    A chat is written as in training: with the same variables of its template.
    """
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "chat", "stop")
    chosen = {name: getattr(config.generate, name) for name in names}
    return {**chosen, "chat_template_variables": config.data.chat_template_variables}
