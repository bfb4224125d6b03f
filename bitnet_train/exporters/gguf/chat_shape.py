"""What a chat template writes around messages, found by asking it: the strings before and after each kind of message.

Jinja is a language, and most chat templates use little of it: a fixed text before and after the content of each role,
and one more that opens the answer. Conversations of marked messages are rendered, the strings between the marks are
read off, and then further conversations have to come out of those strings exactly as out of the template: only then is
there a shape. A system message stands by itself, or inside the first or the last question, as Mistral has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bitnet_train.templates.process import RenderError

Message = Mapping[str, str]
Render = Callable[[Sequence[Message], bool], str]  # messages, and whether the answer is opened
SystemPlace = Literal["none", "alone", "first", "last"]

_SYSTEM, _ASKED, _ANSWERED, _AGAIN = "System-mark.", "Question-mark one?", "Answer-mark.", "Question-mark two?"
_LEAST = 2  # marks of one conversation have to be there once each


@dataclass(frozen=True)
class Wrapped:
    """What stands before and after the content of a message."""

    before: str
    after: str

    def around(self, content: str) -> str:
        """Return the message as it is written."""
        return f"{self.before}{content}{self.after}"


@dataclass(frozen=True)
class ChatShape:
    """The strings of a template; `default_system` is the system message that it writes where none is given.

    `system.after` is what follows a system message inside a question (`place` first or last).
    """

    lead: str
    user: Wrapped
    assistant: Wrapped
    answer: str
    place: SystemPlace = "none"
    system: Wrapped = Wrapped("", "")
    default_system: str = ""

    def render(self, messages: Sequence[Message]) -> str:
        """Return what the template writes for a conversation that waits for an answer."""
        given = next((message["content"] for message in messages if message["role"] == "system"), "")
        if not given and self.default_system:
            return self.render([{"role": "system", "content": self.default_system}, *messages])
        users = [at for at, message in enumerate(messages) if message["role"] == "user"]
        inside = {"first": users[:1], "last": users[-1:]}.get(self.place, [])
        parts = [self._part(message, given if at in inside else "") for at, message in enumerate(messages)]
        return f"{self.lead}{''.join(parts)}{self.answer}"

    def _part(self, message: Message, system: str) -> str:
        content = message["content"]
        if message["role"] == "system":
            return self.system.around(content) if self.place == "alone" else ""
        wrapped = self.user if message["role"] == "user" else self.assistant
        return wrapped.around(f"{system}{self.system.after}{content}" if system else content)


def find_shape(render: Render) -> ChatShape | None:
    """Return the shape of a template; None where it is none of these."""
    try:
        found = _read_off(render)
        if found is None or not all(_agrees(render, found, chat) for chat in _probes(found.place != "none")):
            return None
    except RenderError:
        return None
    return found


def trims(render: Render) -> bool:
    """Whether a template takes spaces away from around a message."""
    chat = [_user("  spaced  ")]
    try:
        return "  spaced  " not in render(chat, True)
    except RenderError:
        return False


def _read_off(render: Render) -> ChatShape | None:
    asked, answered, again = _user(_ASKED), _assistant(_ANSWERED), _user(_AGAIN)
    one, two, three = (render(chat, False) for chat in ([asked], [asked, answered], [asked, answered, again]))
    opened = render([asked], True)
    if not (opened.startswith(one) and two.startswith(one) and three.startswith(two)):
        return None
    texts = (_split(one, _ASKED), _split(two[len(one) :], _ANSWERED), _split(three[len(two) :], _AGAIN))
    if None in texts:
        return None
    (head, user_after), (before_answer, after_answer), (user_before, _) = (text for text in texts if text is not None)
    if not head.endswith(user_before):
        return None
    shape = ChatShape(
        lead=head.removesuffix(user_before),
        user=Wrapped(user_before, user_after),
        assistant=Wrapped(before_answer, after_answer),
        answer=opened[len(one) :],
    )
    return _with_system(render, shape)


def _with_system(render: Render, shape: ChatShape) -> ChatShape | None:
    """Find where a system message stands, if a template takes one."""
    try:
        text = render([_system(_SYSTEM), _user(_ASKED)], False)
    except RenderError:
        return shape
    found = _split(text, _SYSTEM)
    rest = _split(found[1], _ASKED) if found is not None else None
    if found is None:
        return shape if text == render([_user(_ASKED)], False) else None
    if rest is None:
        return None
    head, between = found[0], rest[0]
    if head == shape.lead + shape.user.before and not between.endswith(shape.user.before or "\0"):
        return _inside(render, replace(shape, system=Wrapped("", between)))
    if not between.endswith(shape.user.before):
        return None
    after = between.removesuffix(shape.user.before)
    if head.startswith(shape.lead):
        return replace(shape, place="alone", system=Wrapped(head[len(shape.lead) :], after))
    default = shape.lead.removeprefix(head).removesuffix(after)
    if f"{head}{default}{after}" != shape.lead or not default:
        return None
    return replace(shape, lead="", place="alone", system=Wrapped(head, after), default_system=default)


def _inside(render: Render, shape: ChatShape) -> ChatShape | None:
    chat = [_system(_SYSTEM), _user(_ASKED), _assistant(_ANSWERED), _user(_AGAIN)]
    places: tuple[SystemPlace, ...] = ("first", "last")
    return next(
        (placed for place in places if (placed := replace(shape, place=place)).render(chat) == render(chat, True)),
        None,
    )


def _probes(has_system: bool) -> Iterator[list[Message]]:
    """Yield conversations that a shape has to render as its template does."""
    turns = [_user("What is 1 + 1?"), _assistant("It is 2."), _user("a\nb\n\nc"), _assistant("{{ x }} {% y %}\n"[:-1])]
    turns += [_user('"quoted" \\ <tag> Grüße 世界')]
    for length in (1, 3, 5):
        yield turns[:length]
        if has_system:
            yield [_system("Be brief.\nBe kind."), *turns[:length]]


def _agrees(render: Render, shape: ChatShape, chat: Sequence[Message]) -> bool:
    return shape.render(chat) == render(chat, True)


def _split(text: str, mark: str) -> tuple[str, str] | None:
    """Return what stands before and after the mark, if it is there once."""
    parts = text.split(mark)
    return (parts[0], parts[1]) if len(parts) == _LEAST else None


def _system(content: str) -> Message:
    return {"role": "system", "content": content}


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}
