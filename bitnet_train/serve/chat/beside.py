"""One conversation answered by one model, or by two: in columns where the terminal has room, else one after the other.

Both are asked the same, with the first one's earlier answers; the second never sees its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitnet_train.runtime.generation import GenerationOptions
from bitnet_train.serve.chat.conversation import Message
from bitnet_train.serve.chat.parting import Marked, parts_at, told
from bitnet_train.serve.chat.screen import Screen
from bitnet_train.serve.chat.speaker import Answer, Speaker


@dataclass(frozen=True)
class Both:
    """The answers, in the order of the speakers; fewer where the first was stopped. `parts_at` is a character."""

    answers: tuple[Answer, ...]
    parts_at: int | None = None


def answer_both(
    speakers: Sequence[Speaker],
    messages: Sequence[Message],
    options: GenerationOptions,
    screen: Screen,
    is_stopped: Callable[[], bool],
) -> Both:
    """Show the answer of each speaker as it comes, and with two of them where they part."""
    if len(speakers) == 1:
        answer = speakers[0].answer(messages, options, screen.piece, is_stopped)
        screen.line()
        return Both((answer,))
    show = _in_columns if _has_room(screen) else _in_turn
    answers = show(speakers, messages, options, screen, is_stopped)
    if len(answers) < 2:
        return Both(answers)
    texts = (answers[0].text, answers[1].text)
    screen.note(told(*texts, (speakers[0].name, speakers[1].name)))
    return Both(answers, parts_at(*texts))


def _has_room(screen: Screen) -> bool:
    from bitnet_train.serve.chat.columns import LEAST_WIDTH

    return screen.is_styled and screen.width >= LEAST_WIDTH


def _in_turn(
    speakers: Sequence[Speaker],
    messages: Sequence[Message],
    options: GenerationOptions,
    screen: Screen,
    is_stopped: Callable[[], bool],
) -> tuple[Answer, ...]:
    first, second = speakers
    screen.title(f"{first.name}:")
    answers = [first.answer(messages, options, screen.piece, is_stopped)]
    screen.line()
    if is_stopped():
        return tuple(answers)
    screen.title(f"{second.name}:")
    marked = Marked(answers[0].text, screen.piece)
    answers.append(second.answer(messages, options, marked.piece, is_stopped))
    marked.finish()
    screen.line()
    return tuple(answers)


def _in_columns(
    speakers: Sequence[Speaker],
    messages: Sequence[Message],
    options: GenerationOptions,
    screen: Screen,
    is_stopped: Callable[[], bool],
) -> tuple[Answer, ...]:
    from bitnet_train.serve.chat.columns import Columns

    first, second = speakers
    with Columns((first.name, second.name), screen.out, is_styled=screen.is_styled) as columns:
        answers = [first.answer(messages, options, lambda text: columns.piece(0, text), is_stopped)]
        if not is_stopped():
            answers.append(second.answer(messages, options, lambda text: columns.piece(1, text), is_stopped))
    return tuple(answers)
