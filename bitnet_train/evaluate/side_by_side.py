"""What two models write on real prompts, as texts and figures.

Greedy, the same token ids in, each model its own conversation: the second turn of a chat sees the model's own first
answer. Means are over the turns of a file. Without a teacher its own columns and the agreement are absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from bitnet_train.evaluate.measured import Agreement, Turn, Writing, WrittenText, WrittenTexts, means
from bitnet_train.evaluate.prompt_files import Prompt
from bitnet_train.evaluate.text_measures import common_prefix, parses, repetition, rouge_l, token_f1
from bitnet_train.evaluate.writers import Continuation, Writer
from bitnet_train.progress import track
from bitnet_train.templates.render import render_chat

Chat = Callable[[list[dict[str, str]]], str]  # messages to the prompt that the chat template makes of them

_SUMMARY = "Here is the transcript of a meeting.\n\n{document}\n\n{query}"
_SHOWN_CHARACTERS = 600  # of a long prompt, in the report


@dataclass(frozen=True)
class Limits:
    """Tokens: those of a prompt at most, and new ones at most; together they fit the context of both models."""

    prompt_tokens: int
    new_tokens: int


def side_by_side(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    writers: Mapping[str, Writer],
    limits: Limits,
    *,
    description: str = "prompts",
    chat_template_variables: Mapping[str, Any] | None = None,
) -> WrittenTexts:
    """Let every writer answer every prompt; return each turn with its texts, and the means.

    writers: by role, `student` and perhaps `teacher`. Prompts must have been checked with `reason_to_skip`.
    """
    chat = partial(_chat, tokenizer, chat_template_variables or {})
    turns: list[Turn] = []
    for prompt in track(prompts, description, total=len(prompts)):
        turns += _answer(prompt, tokenizer, chat, writers, limits)
    roles = {role: means([turn.answers[role].figures for turn in turns]) for role in writers}
    return WrittenTexts(
        engines={role: writer.engine for role, writer in writers.items()},
        student=roles["student"],
        teacher=roles.get("teacher"),
        agreement=means([turn.agreement for turn in turns]) if len(writers) > 1 else None,
        turns=tuple(turns),
    )


def reason_to_skip(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return why these prompts cannot be asked, or None."""
    if any(prompt.kind == "chat" for prompt in prompts) and not tokenizer.chat_template:
        return "the model has no chat template"
    return None


def _answer(
    prompt: Prompt, tokenizer: PreTrainedTokenizerBase, chat: Chat, writers: Mapping[str, Writer], limits: Limits
) -> list[Turn]:
    """Ask one prompt, turn by turn."""
    messages: dict[str, list[dict[str, str]]] = {role: [] for role in writers}
    turns = []
    for number, query in enumerate(prompt.turns):
        made: dict[str, Continuation] = {}
        for role, writer in writers.items():
            asked = _fit_document(prompt, query, tokenizer, chat, limits) if prompt.kind == "summary" else query
            messages[role].append({"role": "user", "content": asked})
            ids = _prompt_ids(prompt, messages[role], tokenizer, chat, limits)
            made[role] = writer.write(ids, limits.new_tokens, prompt.stops)
            messages[role].append({"role": "assistant", "content": made[role].text})
        turns.append(_turn(prompt, query, number, made))
    return turns


def _prompt_ids(
    prompt: Prompt, messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, chat: Chat, limits: Limits
) -> list[int]:
    """Return the ids that a model is given; too long a conversation or text loses its beginning."""
    if prompt.kind in ("chat", "summary") and tokenizer.chat_template:
        ids = tokenizer(chat(messages), add_special_tokens=False, verbose=False)["input_ids"]
    else:
        ids = tokenizer(_plain(prompt, messages), verbose=False)["input_ids"]
    return list(ids)[-limits.prompt_tokens :]


def _chat(tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, Any], messages: list[dict[str, str]]) -> str:
    return render_chat(tokenizer, messages, variables=variables)


def _plain(prompt: Prompt, messages: list[dict[str, str]]) -> str:
    last = messages[-1]["content"]
    return f"{last}\n\nAnswer:" if prompt.kind == "summary" else last


def _fit_document(prompt: Prompt, query: str, tokenizer: PreTrainedTokenizerBase, chat: Chat, limits: Limits) -> str:
    """Return document and query as one message, the end of the document left out where the whole is too long."""
    whole = [{"role": "user", "content": _SUMMARY.format(document="", query=query)}]
    unlimited = Limits(1 << 30, limits.new_tokens)
    left = (
        limits.prompt_tokens - len(_prompt_ids(prompt, whole, tokenizer, chat, unlimited)) - 8
    )  # seams may split tokens
    offsets = tokenizer(prompt.document, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
        "offset_mapping"
    ]
    document = prompt.document
    if len(offsets) > max(0, left):
        document = document[: offsets[max(0, left)][0]]
    return _SUMMARY.format(document=document, query=query)


def _turn(prompt: Prompt, query: str, number: int, made: Mapping[str, Continuation]) -> Turn:
    answers = {role: WrittenText(one.text, _figures(prompt, query, one)) for role, one in made.items()}
    name = prompt.name if len(prompt.turns) == 1 else f"{prompt.name}, turn {number + 1}"
    agreement = _agreement(made["student"], made["teacher"]) if "teacher" in made else None
    return Turn(name, _shown(query), prompt.reference, answers, agreement)


def _figures(prompt: Prompt, query: str, made: Continuation) -> Writing:
    return Writing(
        tokens=len(made.token_ids),
        characters=len(made.text),
        ended=made.ended,
        repetition=repetition(made.token_ids),
        seconds=made.seconds,
        parses=parses(query, made.text, ended=made.ended) if prompt.kind == "code" else None,
        rouge_l_to_reference=rouge_l(made.text, prompt.reference) if prompt.reference else None,
    )


def _agreement(student: Continuation, teacher: Continuation) -> Agreement:
    prefix = common_prefix(student.token_ids, teacher.token_ids)
    return Agreement(
        common_prefix_tokens=prefix,
        common_prefix_share=prefix / max(1, len(teacher.token_ids)),
        rouge_l=rouge_l(student.text, teacher.text),
        token_f1=token_f1(student.text, teacher.text),
    )


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} ..."
