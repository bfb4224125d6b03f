r"""Rows of data as they come: broken JSON, marks, NUL, halves of surrogates, long lines, odd roles; and sound chats.

What is read must be trained where it should be: the marked tokens, decoded, are the answers and their end.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from bitnet_train.errors import DataError
from bitnet_train.train.data.chat import render, segments, tokenise
from bitnet_train.train.data.chat_template import ChatTemplate
from bitnet_train.train.data.examples import Conversation, Document, Example, RowReader
from bitnet_train.train.data.file_formats import read_file
from bitnet_train.train.data.messages import Message
from bitnet_train.train.data.row_shape import FieldNames
from scripts.fuzz.drawn import drawn
from scripts.fuzz.folders import byte_tokenizer, quiet
from scripts.fuzz.targets import Attempt, Outcome

END = "<|im_end|>"
_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "chatml": _CHATML,
    "with a system prompt of its own": "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}" + _CHATML,
    "which forgets": (  # only the last answer keeps its (empty) reasoning
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if loop.last and m['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
        "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
}
_LONG = 10 << 20
_TURN = {"role": "assistant", "content": "yes"}
_SOUND: tuple[dict[str, Any], ...] = (
    {"text": "a text"},
    {"messages": [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]},
    {"conversations": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so"}]},
    {"instruction": "add", "input": "1 1", "output": "2"},
    {"prompt": "one", "completion": " two"},
)
_ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**70, 1.5, "", " ", "\0", "\ufeff", "x\ud83dy", "<|im_end|>", "{{ 1 }}", "naïve 漢字 🙂"),
    *([], [[]], [None], [1], {}, {"a": 1}, [_TURN], [{"role": "user"}], [{"role": 3, "content": "x"}], [[_TURN]]),
    *([{**_TURN, "role": "wizard"}], [{**_TURN, "weight": 0.5}], [{**_TURN, "content": [{"type": "image"}]}]),
    *([_TURN, _TURN], [{**_TURN, "tool_calls": "{"}], [{**_TURN, "content": ["a", {"text": "b"}]}]),
)


def rows(work: Path) -> Attempt:
    """Read a file of rows, one of them odd, and tokenise what is read."""
    quiet()
    template = ChatTemplate(_chat_tokenizer(_CHATML))

    def attempt(dice: random.Random, number: int) -> Outcome:
        file, odd_row = _file(dice, work, long=number % 250 == 0)
        reader = RowReader(None, FieldNames(), replace_surrogates=dice.random() < 0.2)
        try:
            for example in reader.examples(read_file(file)):
                _check(example, template)
        except DataError as error:
            said = str(error)
            assert file.name in said, f"names no file: {said[:400]}"
            assert odd_row is None or f"{file.name}:" in said or " row " in said, f"names no row: {said[:400]}"
            return "refused"
        return "works"

    return attempt


def _file(dice: random.Random, work: Path, *, long: bool) -> tuple[Path, int | None]:
    """Write three rows of a kind, one of them changed, or its bytes spoiled (None: no row can be named)."""
    sound = dice.choice(_SOUND)
    odd = dice.randrange(3)
    lines = [json.dumps(sound).encode() for _ in range(3)]
    lines[odd] = _odd_line(dice, dict(sound))
    if long:
        lines[odd] = json.dumps(dict.fromkeys(sound, "x" * _LONG)).encode()
    content = b"\n".join(lines)
    file = work / dice.choice(("rows.jsonl", "rows.ndjson"))
    if dice.random() < 0.2:
        file, content = work / "rows.json", b"[" + b",".join(lines) + b"]"
    named: int | None = odd
    if dice.random() < 0.15:
        marks = (b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\0\0", b"\x1f\x8b", b"PK\x03\x04", b"\xc3(")
        at = dice.choice((0, dice.randrange(len(content))))
        content, named = content[:at] + dice.choice(marks) + content[at:], None
    file.write_bytes(content)
    return file, named


def _odd_line(dice: random.Random, row: dict[str, Any]) -> bytes:
    how, name = dice.randrange(6), dice.choice(list(row))
    if how == 0:
        del row[name]
    elif how == 1:
        row[dice.choice(("role", "Text", "messages", name.upper()))] = row.pop(name)
    elif how < 4:
        row[name] = dice.choice(_ODD)
    elif how == 4:
        deep = dice.choice((10, 900, 100_000))
        return dice.choice((b"[" * deep, b'{"text":' * deep, b'{"text":' + b"[" * deep + b"]" * deep + b"}"))
    text = json.dumps(row, ensure_ascii=dice.random() < 0.7).encode(errors="surrogatepass")
    return (
        dice.choice((text[:-1], text + b"}", text.replace(b'"', b"'"), b"null", b"3", b"NaN", b'"x"'))
        if how == 5
        else text
    )


def _check(example: Example, template: ChatTemplate) -> None:
    if isinstance(example, Document):
        return
    for rendered in render(example, template):
        tokens = tokenise(rendered, template.tokenizer)
        assert len(tokens.ids) == len(tokens.trained)
        wanted = "".join(rendered.text[first:last] for first, last in rendered.trained)
        found = str(template.tokenizer.decode(tokens.ids[tokens.trained].tolist()))
        assert found == wanted, f"trained {found[:200]!r}, and the answers are {wanted[:200]!r}"


def chats(work: Path) -> Attempt:
    """Render a drawn conversation by each way that templates have, and decode what is trained."""
    quiet()
    made = {name: ChatTemplate(_chat_tokenizer(source)) for name, source in TEMPLATES.items()}
    plain = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))
    text = st.text(plain | st.sampled_from("\n\t th"), min_size=1, max_size=24).filter(_is_plain)
    asked = st.lists(st.tuples(text, text, st.booleans()), min_size=1, max_size=4)
    return drawn(
        st.tuples(st.sampled_from(sorted(made)), st.none() | text, asked),
        lambda case: _conversation(made[case[0]], case[1], case[2]),
    )


def _is_plain(text: str) -> bool:
    return bool(text.strip()) and "<" not in text and ">" not in text


def _conversation(template: ChatTemplate, system: str | None, turns: list[tuple[str, str, bool]]) -> Outcome:
    messages = [Message("system", system, False)] if system else []
    last = len(turns) - 1
    for number, (question, answer, trained) in enumerate(turns):
        messages += [Message("user", question, False), Message("assistant", answer, trained or number == last)]
    answers = [message.content + END for message in messages if message.trained]
    found: list[str] = []
    for rendered in render(Conversation(tuple(messages), "drawn:1"), template):
        tokens = tokenise(rendered, template.tokenizer)
        parts = segments(np.asarray(tokens.ids), np.asarray(tokens.trained), template.tokenizer)
        found += [part for part, trained in parts if trained]
    assert [part.removeprefix("<think>\n\n</think>\n\n") for part in found] == answers, f"{found} for {answers}"
    return "works"


def _chat_tokenizer(template: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer("<|im_start|>", END, "<|endoftext|>")
    tokenizer.chat_template = template
    return tokenizer
