"""The messages of a conversation: a system message, and questions with their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bitnet_train.errors import DataError

Message = dict[str, Any]


@dataclass
class Conversation:
    """Every message after the system message is in `turns`, oldest first, as it was asked, answered or loaded.

    `first` is the first of them that is still sent: those before it no longer fit into the context.
    """

    system: str | None = None
    turns: list[Message] = field(default_factory=list)
    first: int = 0

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Conversation:
        """Return the conversation of these messages; a system message that leads them can be changed later."""
        leads = bool(messages) and messages[0]["role"] == "system" and set(messages[0]) == {"role", "content"}
        return cls(messages[0]["content"] if leads else None, list(messages[1:] if leads else messages))

    @property
    def messages(self) -> list[Message]:
        """All of it, as it is saved."""
        return self.messages_from(0)

    def messages_from(self, first: int) -> list[Message]:
        """Return the system message, and the turns from `first` on."""
        lead = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*lead, *self.turns[first:]]

    @property
    def is_open(self) -> bool:
        """Whether the last message waits for an answer."""
        return bool(self.turns) and self.turns[-1]["role"] not in ("assistant", "system")

    @property
    def starts(self) -> list[int]:
        """Where each question begins, of those that are still sent."""
        return [at for at in range(self.first, len(self.turns)) if self.turns[at]["role"] == "user"]

    def ask(self, text: str) -> None:
        """Add a question."""
        self.turns.append({"role": "user", "content": text})

    def answer(self, text: str) -> None:
        """Add the answer to it."""
        self.turns.append({"role": "assistant", "content": text})

    def undo(self) -> Message:
        """Take the last question back, with all that came after it, and return it. Raises DataError without one."""
        return self._cut(self._last_question())[0]

    def reopen(self) -> list[Message]:
        """Take back what came after the last question and return it. Raises DataError without a question."""
        return self._cut(self._last_question() + 1)

    def reset(self) -> None:
        """Forget every turn."""
        self.turns, self.first = [], 0

    def _cut(self, at: int) -> list[Message]:
        taken, self.turns = self.turns[at:], self.turns[:at]
        self.first = min(self.first, at)
        return taken

    def _last_question(self) -> int:
        asked = [at for at, message in enumerate(self.turns) if message["role"] == "user"]
        if not asked:
            raise DataError("Nothing was asked yet.")
        return asked[-1]
