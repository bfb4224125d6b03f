"""How much of a conversation a model is sent: all of it, or what the context takes beside the answer.

The answer keeps `wanted` tokens of the context, of a small one half. Where the conversation leaves less, its oldest
questions go, each with its answer, and the system message stays; or it is refused (`chat.when_full=refuse`). The last
question alone may leave less than that: the answer is short then. One that leaves nothing is refused.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitnet_train.errors import DataError
from bitnet_train.serve.chat.conversation import Conversation, Message

Room = Callable[[Sequence[Message]], int]  # tokens that a prompt of these messages leaves in the context


@dataclass(frozen=True)
class Fitted:
    """The first turn that is sent, and the tokens that the answer may have."""

    first: int
    new_tokens: int


def fit(conversation: Conversation, room: Room, context: int, wanted: int, *, drop: bool) -> Fitted:
    """Say what of a conversation is sent. Raises DataError where it does not fit, with the ways out."""
    reserve = min(wanted, context // 2)
    left = room(conversation.messages_from(conversation.first))
    if left >= reserve:
        return Fitted(conversation.first, min(wanted, left))
    if not drop:
        raise DataError(
            f"The conversation leaves {max(left, 0):,} of the {context:,} tokens of the context, and the answer keeps "
            f"{reserve:,}. /reset begins anew, /undo takes the last question back, /params max_new_tokens=N asks for "
            "less; `chat.when_full=drop` forgets the oldest questions by itself."
        )
    return _without_the_oldest(conversation, room, context, wanted, reserve)


def _without_the_oldest(conversation: Conversation, room: Room, context: int, wanted: int, reserve: int) -> Fitted:
    starts = conversation.starts or [len(conversation.turns) - 1]
    asked = bisect_left(starts, reserve, key=lambda start: room(conversation.messages_from(start)))
    first = starts[min(asked, len(starts) - 1)]
    left = room(conversation.messages_from(first))
    if left < 1:
        raise DataError(
            f"This question takes {context - left:,} tokens"
            f"{'' if conversation.system is None else ' with the system message'}, and the context has {context:,}: "
            "nothing is left for an answer. It was not sent: ask about a part of it."
        )
    return Fitted(first, min(wanted, left))
