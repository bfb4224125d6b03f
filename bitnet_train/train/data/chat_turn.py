r"""One turn of the assistant within a rendered chat: where it begins, and what ends it.

For turn i of a conversation, with `text` the chat template,

    asked     = text(messages[:i], ask)        what the model sees
    answered  = text(messages[:i+1])           the same, with its answer
    continued = text(messages)                 with the turns that follow; for a last turn, with a question after it

**Beginning.** Mostly `asked` is a prefix of `answered`, and the rest is the answer. Templates of reasoning models break
this: their generation prompt ends in something that they do not write in the turn. What the model sees is then `asked`,
so the sample is `asked + answer`, if that is well formed:

    asked ends in        answered has       the answer
    <think>\n</think>    answer             as rendered: the block is empty and closed
    <think>              </think>answer     as rendered: it is closed at once
    <think>\n</think>    </think>answer     the answer: the block is there once
    Let me think:        why, answer    as rendered, where the row gives that reasoning
    ... Q[/INST]         Q[/INST]answer     what follows: the turns before it are written otherwise once it is there
    <think>              answer             the row's own text where it begins with <think>, which the template cut;
                                            else refused: the answer would be learned as reasoning

**End.** The special token that closes the answer. Where several do (Phi 3.5 adds an end of text after a last turn) it
is the last one that stays when the conversation goes on. Where none does, the template closes a turn with the next one
(GLM: `<|user|>`), and that token is taken from `continued`. Where there is none either, which is counted, the answer is
trained to its very end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bitnet_train.errors import DataError
from bitnet_train.train.data.chat_template import ChatTemplate
from bitnet_train.train.data.examples import Conversation
from bitnet_train.train.data.messages import REASONING, Message
from bitnet_train.train.data.tool_calls import call_names

_MARK = re.compile(r"<[^<>\n]+>|\[[^\[\]\n]+\]")  # <think>, <|channel>, [THINK]
_OPEN_MARK = re.compile(r"[<\[][^<>\[\]\s]*\Z")
NO_END = "assistant turns that no special token ends: a model trained on them learns no sign to stop at"


@dataclass(frozen=True)
class Answer:
    """A text that ends with a turn, and the half-open range of its characters that is the turn."""

    text: str
    trained: tuple[int, int]


def answer(example: Conversation, i: int, whole: str, template: ChatTemplate) -> Answer:
    """Return turn `i` behind all that the model sees before it; `whole` is the rendered conversation.

    Raises DataError when the answer cannot be told from its prompt, or renders to nothing the row has.
    """
    messages, where = example.messages, example.where
    asked = template.text(messages[:i], example.tools, where, ask=True)
    answered = template.text(messages[: i + 1], example.tools, where)
    _check_calls_are_written(answered, example, i, template)
    text = asked + _written(asked, answered, example, i, template)
    ends = _ends(text, len(asked), template.special)
    last = i + 1 == len(messages)
    if last and len(ends) == 1:
        end = text[: ends[0]]
    else:
        continued = _continued(example, template) if last else whole
        end = _ended(text, ends, continued, len(asked), messages[i].content, template)
    return Answer(end, (len(asked), len(end)))


def note_left_out(example: Conversation, samples: str, template: ChatTemplate) -> None:
    """Count turns whose text, or whose calls, do not stand in the rendered samples as the row has them."""
    for message in example.messages:
        if message.role != "assistant" and not _stands_in(message.content.strip(), samples):
            template.notes[f"turns of role `{message.role}` whose text the chat template changes or leaves out"] += 1
        if not all(name in samples for name in call_names(message.fields.get("tool_calls"))):
            template.notes["assistant turns with `tool_calls` that the chat template leaves out"] += 1
        for name in REASONING:
            if not _stands_in(str(message.fields.get(name, "")).strip(), samples):
                template.notes[f"assistant turns whose `{name}` the chat template leaves out"] += 1


def _written(asked: str, answered: str, example: Conversation, i: int, template: ChatTemplate) -> str:
    """Return what the model writes after `asked`; see the module's text."""
    if answered.startswith(asked):
        return answered[len(asked) :]
    common = _OPEN_MARK.sub("", _common_prefix(asked, answered))
    tail, rest = asked[len(common) :], answered[len(common) :]
    content, opening = example.messages[i].content.strip(), tail.strip()
    marks = _MARK.findall(tail)
    if rest.lstrip().startswith(opening):  # all but the white space is there
        return rest.lstrip().removeprefix(opening)
    if len(marks) > 1 and marks[-1] in _closings(marks[-2]):
        return rest.removeprefix(marks[-1])
    if len(marks) == 1 and rest.lstrip().startswith(_closings(marks[0])):
        return rest
    reasoning = _reasoning(example.messages[i])
    if reasoning and rest.lstrip().startswith(reasoning) and not any(map(_closes, marks)):
        return rest.lstrip()  # written without what introduces it
    anchor = asked[asked.rfind(example.messages[i - 1].content.strip() or asked) :]
    if anchor in rest:  # the turns before it are written otherwise now, their end and the prompt alike
        return rest.rpartition(anchor)[2]
    if content.startswith(opening):
        own = content.removeprefix(opening).lstrip()
        suffix = next((own[k:] for k in range(len(own)) if rest.strip().startswith(own[k:])), "")
        if suffix:
            return own + rest.partition(suffix)[2]
    raise DataError(_refusal(example, i, tail, rest, template))


def _refusal(example: Conversation, i: int, tail: str, rest: str, template: ChatTemplate) -> str:
    messages, tools = example.messages, example.tools
    settable = ", ".join(template.variables_read(tools)) or "none"
    asked = messages[i - 1].content.strip()
    if asked and asked in tail:
        return (
            f"{example.where}: the chat template writes the turns before turn {i + 1} otherwise once that is there"
            f" ({rest[:60]!r} for {tail[:60]!r}), so its answer cannot be told from its prompt.\nUse another template"
            f" (`tokenizer.chat_template`), or `data.chat_template_variables` (it reads: {settable})."
        )
    begins = (
        f"the chat template's generation prompt ends in {tail!r}, but turn {i + 1} is not written so ({rest[:60]!r}):"
    )
    begins += " the model would be asked for one thing and trained on another."
    if _reasoning(messages[i]) and _reasoning(messages[i]) in rest:
        return (
            f"{example.where}: {begins}\nThe turn has reasoning: switch that on by `data.chat_template_variables` (this"
            f" template reads: {settable}), or drop it."
        )
    reasoning = next((name for name in REASONING if template.reads(name, tools)), None)
    give = f"as `{reasoning}`" if reasoning else f"in its content, beginning with {tail.strip()!r}"
    return (
        f"{example.where}: {begins}\nIf that begins its reasoning: give the turn's reasoning {give}, or switch it off"
        f" by `data.chat_template_variables` (this template reads: {settable}). Otherwise use another template"
        " (`tokenizer.chat_template`)."
    )


def _check_calls_are_written(answered: str, example: Conversation, i: int, template: ChatTemplate) -> None:
    message = example.messages[i]
    names = call_names(message.fields.get("tool_calls"))
    read = template.reads("tool_calls", example.tools) and all(name in answered for name in names)
    if names and not message.content.strip() and not read:
        raise DataError(
            f"{example.where} message {i + 1}: the turn has `tool_calls` and no text, and the chat template does not"
            " write its calls, so an end token alone would be learned.\nUse a template that does, write the calls into"
            " `content`, or give the turn `weight: 0`."
        )


def _closings(mark: str) -> tuple[str, ...]:
    """Return what may close a mark: </think>, [/THINK], <|END_THINKING|>, <channel|> for <|channel>."""
    slashed = f"{mark[0]}/{mark[1:]}"
    turned = f"<{mark[2:-1]}|>" if mark.startswith("<|") and not mark.endswith("|>") else slashed
    return slashed, turned, mark.replace("START_", "END_") if "START_" in mark else slashed


def _closes(mark: str) -> bool:
    """Return whether a mark is of the closing kind, see `_closings`."""
    return mark[1] == "/" or "END_" in mark or (mark[1] != "|" and mark.endswith("|>"))


def _reasoning(message: Message) -> str:
    """Return the reasoning a turn gives beside its text, "" without any."""
    given = next((message.fields[name] for name in REASONING if message.fields.get(name)), "")
    return given.strip() if isinstance(given, str) else ""


def _common_prefix(first: str, second: str) -> str:
    length = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    return first[:length] if length is not None else min(first, second, key=len)


def _ends(text: str, start: int, special: tuple[str, ...]) -> list[int]:
    """Return where the special tokens at the end of the text end, white space around them, the last one first.

    Without those of a generation prompt that the template adds unasked (Command R7B), as the text before `start` ends.
    """
    found, rest = [], text.rstrip()
    while len(rest) > start and rest.endswith(special):
        end = len(rest)
        rest = rest[: -max(len(token) for token in special if rest.endswith(token))]
        found.append((len(rest), end))
        rest = rest.rstrip()
    asked, answered = text[:start], text[start:]
    shared = len(_common_prefix(asked[::-1], answered[::-1]))
    prompted = sum(begin >= len(text) - shared for begin, _ in found)
    return [end for _, end in found[max(0, prompted - 1) :]]


def _ended(text: str, ends: Sequence[int], continued: str, start: int, content: str, template: ChatTemplate) -> str:
    """Return the text up to the token that ends its last turn."""
    if ends:
        return text[: next((end for end in ends if continued.startswith(text[:end])), ends[0])]
    for following in _following(text, start, continued, content):
        gap = len(following) - len(following.lstrip())
        token = next((token for token in template.special if following.startswith(token, gap)), None)
        if token is not None:
            template.notes[
                f"assistant turns that {token} closes, which comes only with the next turn: learned too"
            ] += 1
            return text + following[: gap + len(token)]
    template.notes[NO_END] += 1
    return text


def _following(text: str, start: int, continued: str, content: str) -> Iterator[str]:
    """Yield what follows the turn in the continued conversation, wherever it can stand there."""
    if continued.startswith(text):
        yield continued[len(text) :]
    for words in (text[start:].strip()[-64:], content.strip()[-64:]):  # its reasoning may be gone by then
        yield from (continued[found.end() :] for found in re.finditer(re.escape(words), continued) if words)


def _continued(example: Conversation, template: ChatTemplate) -> str:
    """Return the conversation with one more turn after its last, "" where the template does not take it."""
    calls = example.messages[-1].fields.get("tool_calls") or []
    names = call_names(calls)
    fields = {"name": names[0], "tool_call_id": calls[0].get("id")} if names else {}
    more = Message("tool" if calls else "user", "?", False, fields)
    try:
        return template.text((*example.messages, more), example.tools, example.where)
    except DataError:
        return ""


def _stands_in(content: str, text: str) -> bool:
    """Return whether a text holds the content, as it is or as a JSON string."""
    return content in text or any(json.dumps(content, ensure_ascii=plain)[1:-1] in text for plain in (True, False))
