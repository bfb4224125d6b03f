"""A conversation with one model, or with two side by side: what is typed is answered, or does what it commands.

Nothing that is typed ends the program but `/exit` and the end of the input: an error is told, and the question that
caused it taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from bitnet_train.errors import BitnetTrainError, DataError
from bitnet_train.runtime.generation import GenerationOptions
from bitnet_train.serve.chat.beside import answer_both
from bitnet_train.serve.chat.chat_file import load_chat, save_chat
from bitnet_train.serve.chat.commands import Asked, help_lines, message_of, read_command
from bitnet_train.serve.chat.conversation import Conversation, Message
from bitnet_train.serve.chat.fitting import Fitted, fit
from bitnet_train.serve.chat.parameters import parameter_line, with_parameters
from bitnet_train.serve.chat.screen import Screen
from bitnet_train.serve.chat.speaker import Answer, Speaker, interruptible
from bitnet_train.serve.chat.typed import unquoted


class Reader(Protocol):
    """Where messages come from."""

    def read(self) -> str:
        """Return the next. Raises EOFError at the end, KeyboardInterrupt for Ctrl-C, DataError for what is none."""
        ...


@dataclass
class Session:
    """Who answers (a second speaker beside the first, or none), what was said, how answers are written."""

    speakers: tuple[Speaker, ...]
    screen: Screen
    options: GenerationOptions
    conversation: Conversation = field(default_factory=Conversation)
    drop: bool = True
    answers: list[dict[str, Any]] = field(default_factory=list)
    num_faults: int = 0
    _again: int = 0  # how often the last question was answered anew: each time with another seed

    def run(self, reader: Reader) -> None:
        """Answer until the input ends."""
        while True:
            try:
                if not self.take(reader.read()):
                    return
            except EOFError:
                return
            except KeyboardInterrupt:
                self.screen.note("(Ctrl-D or /exit leaves.)")
            except BitnetTrainError as error:
                self.num_faults += 1
                self.screen.fault(str(error))

    def take(self, text: str) -> bool:
        """Do what was typed; False where it asks to leave."""
        asked = read_command(text)
        if asked is not None:
            return self._command(asked)
        if text.strip():
            self._again = 0
            self._ask(message_of(unquoted(text)))
        return True

    def _command(self, asked: Asked) -> bool:
        if asked.name == "exit":
            return False
        commands: Mapping[str, Callable[[str], object]] = {
            "help": lambda _: self.screen.note("\n".join(help_lines())),
            "system": self._system,
            "params": self._params,
            "undo": lambda _: self._undo(),
            "regenerate": lambda _: self._regenerate(),
            "reset": lambda _: self._reset(),
            "save": self._save,
            "load": self._load,
        }
        commands[asked.name](unquoted(asked.argument))
        return True

    def _ask(self, text: str) -> None:
        self.conversation.ask(text)
        try:
            self._answer()
        except BaseException:
            if self.conversation.is_open:
                self.conversation.undo()
            raise

    def _answer(self) -> None:
        """Answer the last question, and keep the answer; one that was stopped before its first word is no answer."""
        with interruptible() as is_stopped:
            fitted = self._fitted()
            messages = self.conversation.messages_from(fitted.first)
            options = _with(self.options, fitted.new_tokens, self._again)
            made = answer_both(self.speakers, messages, options, self.screen, is_stopped)
        answer = made.answers[0]
        if answer.ending == "interrupted" and not answer.text.strip():
            raise KeyboardInterrupt
        self.conversation.answer(answer.text)
        self.answers.append(self._facts(made.answers, made.parts_at))
        self.screen.note("\n".join(self._told(fitted, made.answers)))

    def _fitted(self) -> Fitted:
        """Say what of the conversation is sent, to both where there are two, and tell what no longer is."""
        context = min(speaker.context for speaker in self.speakers)

        def room(messages: Any) -> int:
            return min(speaker.room(messages) - speaker.context for speaker in self.speakers) + context

        before = self.conversation.first
        fitted = fit(self.conversation, room, context, self.options.max_new_tokens, drop=self.drop)
        self.conversation.first = fitted.first
        if fitted.first > before:
            gone = fitted.first - before
            self.screen.note(
                f"The context of {context:,} tokens is full: the oldest {gone} messages are no longer sent."
            )
        return fitted

    def _told(self, fitted: Fitted, answers: tuple[Answer, ...]) -> list[str]:
        return [
            _line(speaker, answer, self.options.max_new_tokens, named=len(answers) > 1)
            for speaker, answer in zip(self.speakers, answers, strict=False)
        ]

    def _facts(self, answers: tuple[Answer, ...], parts_at: int | None) -> dict[str, Any]:
        kept = [
            {**asdict(answer), "tokens_per_s": answer.tokens_per_s, "engine": speaker.engine}
            for speaker, answer in zip(self.speakers, answers, strict=False)
        ]
        return kept[0] if len(self.speakers) == 1 else {**kept[0], "beside": kept[1:], "parts_at": parts_at}

    def _system(self, text: str) -> None:
        if not text:
            now = self.conversation.system
            self.screen.note("There is no system message." if now is None else f"The system message: {now}")
            return
        self.conversation.system = None if text in ('""', "''") else text
        has_turns = " What was said before stays; /reset begins anew." if self.conversation.turns else ""
        self.screen.note(f"The system message is {'gone' if self.conversation.system is None else 'set'}.{has_turns}")

    def _params(self, words: str) -> None:
        self.options = with_parameters(self.options, words)
        self.screen.note(parameter_line(self.options))

    def _undo(self) -> None:
        taken = self.conversation.undo()
        self.screen.note(f"Forgotten: {_beginning(taken)}")

    def _regenerate(self) -> None:
        taken = self.conversation.reopen()
        if self.options.is_greedy:
            self.screen.note("The temperature is 0, so the answer is the same one: /params temperature=0.8 varies it.")
        self._again += 1
        try:
            self._answer()
        except BaseException:
            self.conversation.turns += taken
            raise

    def _reset(self) -> None:
        self.conversation.reset()
        kept = "" if self.conversation.system is None else "; the system message stays"
        self.screen.note(f"A new conversation begins{kept}.")

    def _save(self, word: str) -> None:
        path = save_chat(_named(word, "save"), self.conversation.messages)
        self.screen.note(f"{len(self.conversation.messages)} messages are in {path}")

    def _load(self, word: str) -> None:
        self.conversation = Conversation.of(load_chat(_named(word, "load")))
        self._again = 0
        waits = " The last one waits for an answer: /regenerate." if self.conversation.is_open else ""
        self.screen.note(f"{len(self.conversation.messages)} messages are loaded.{waits}")


def _with(options: GenerationOptions, new_tokens: int, again: int) -> GenerationOptions:
    return replace(options, max_new_tokens=new_tokens, seed=options.seed + again)


def _line(speaker: Speaker, answer: Answer, wanted: int, *, named: bool) -> str:
    """Return the line below an answer: its tokens, how fast they came, how full the context is, what ended it."""
    rate = answer.tokens_per_s
    used = answer.num_prompt_tokens + answer.num_tokens
    parts = [
        *([speaker.name] if named else []),
        f"{answer.num_tokens:,} tokens",
        *([] if rate is None else [f"{rate:,.1f} tokens/s"]),
        f"context {used:,} of {speaker.context:,}",
        *_why(answer, wanted),
    ]
    return ", ".join(parts)


def _why(answer: Answer, wanted: int) -> list[str]:
    if answer.ending == "interrupted":
        return ["stopped"]
    if answer.ending != "length":
        return []
    is_full = answer.num_tokens < wanted
    return ["the context is full" if is_full else "cut at max_new_tokens"]


def _beginning(message: Message) -> str:
    text = " ".join(str(message["content"]).split())
    return text if len(text) <= 60 else f"{text[:60]}..."


def _named(word: str, command: str) -> str:
    if not word:
        raise DataError(f"`/{command}` needs the name of a file: `/{command} chat.json`.")
    return word
