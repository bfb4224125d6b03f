"""`bitnet-train chat`: talk to a model, in a terminal or through pipes.

The facts hold the conversation, and of each answer its tokens and its speed. Read from a pipe, the exit code is 1 where
something of it could not be answered.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitnet_train.config import Config
from bitnet_train.errors import ConfigError
from bitnet_train.run.directory import is_model, packed_folder
from bitnet_train.run.prompt import sampling
from bitnet_train.runtime.generation import GenerationOptions
from bitnet_train.serve.chat.chat_file import load_chat
from bitnet_train.serve.chat.conversation import Conversation
from bitnet_train.serve.chat.history import open_history
from bitnet_train.serve.chat.plain_reader import PlainReader
from bitnet_train.serve.chat.screen import Screen
from bitnet_train.serve.chat.session import Reader, Session
from bitnet_train.serve.chat.speaker import Speaker
from bitnet_train.serve.chat.speakers import Opening, open_packed, open_source

_NO_EDITING = "No history and no editing here: `pip install 'bitnet-train[serve]'` brings both."


def chat(config: Config) -> dict[str, Any]:
    """Answer what is typed, until `/exit` or the end of the input."""
    screen = Screen(sys.stdout, sys.stderr, quiet=config.quiet)
    named, settings = config.chat.conversation, config.chat
    begun = Conversation.of(load_chat(named, "chat.conversation")) if named is not None else Conversation()
    reader = _reader(config, screen)
    options = GenerationOptions(**{**sampling(config), "chat": True, "max_new_tokens": settings.answer_tokens})
    session = Session(_speakers(config), screen, options, begun, drop=settings.when_full == "drop")
    screen.note(_greeting(session))
    session.run(reader)
    return {
        "engine": session.speakers[0].engine,
        "context_tokens": session.speakers[0].context,
        "messages": session.conversation.messages,
        "answers": session.answers,
        "refused": session.num_faults,
        **({} if sys.stdin.isatty() else {"passed": session.num_faults == 0}),
    }


def _speakers(config: Config) -> tuple[Speaker, ...]:
    """Load the model that was named, and the original where it is to answer too."""
    against = _against(config) if config.chat.beside else None
    name = "1-bit" if against is not None else Path(config.path or str(config.run.dir)).name
    how = Opening(
        config.data.chat_template_variables,
        config.generate.engine,
        config.generate.threads,
        lambda: _prepare_torch(config),
        config.generate.cache_dtype,
    )
    if _is_source(config):
        first = open_source(str(config.path), name, how)
    else:
        first = open_packed(packed_folder(config)[0], name, how)
    return (
        (first,)
        if against is None
        else (first, open_source(against, "original", replace(how, engine="auto", cache_dtype="float32")))
    )


def _prepare_torch(config: Config) -> None:
    from bitnet_train.run import assembly

    assembly.prepare_process(config)


def _is_source(config: Config) -> bool:
    return config.run.dir is None and is_model(config)


def _against(config: Config) -> str:
    if config.chat.against is not None:
        return config.chat.against
    if config.run.dir is None:
        raise ConfigError(
            "`--beside` needs the original, and only a run knows its own. Name it: `chat.against=FOLDER`, a GGUF file, "
            "a hub id or `tiny`."
        )
    return config.model.source


def _reader(config: Config, screen: Screen) -> Reader:
    if not (sys.stdin.isatty() and screen.is_terminal):
        asks = sys.stdin.isatty()
        return PlainReader(sys.stdin.buffer, lambda: sys.stderr.write("> ") and sys.stderr.flush() if asks else None)
    try:
        from bitnet_train.serve.chat.terminal_reader import TerminalReader

        run = Path(config.run.dir) if config.run.dir else None
        return TerminalReader(open_history(config.chat.history, run, screen.note), screen.note)
    except ModuleNotFoundError:
        screen.note(_NO_EDITING)
        return PlainReader(sys.stdin.buffer, lambda: screen.piece("> "))


def _greeting(session: Session) -> str:
    names = [
        f"{speaker.name} ({speaker.engine}, {speaker.context:,} tokens of context)" for speaker in session.speakers
    ]
    has_begun = f", {len(session.conversation.messages)} messages so far" if session.conversation.turns else ""
    return f"{' beside '.join(names)}{has_begun}. /help lists commands; Ctrl-D leaves."
