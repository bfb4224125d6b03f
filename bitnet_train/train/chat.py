r"""Render chats and instructions, and find the characters a model is trained to write.

For the assistant's turn i of a conversation, with `render` the tokenizer's chat template,

    asked    = render(messages[:i], add_generation_prompt=True)      what the model sees
    answered = render(messages[:i+1])                                the same, with its answer
    trained  = answered[len(asked):], cut after the turn's end token

which holds only if `asked` is a prefix of `answered`; it is checked. The whole conversation is rendered and tokenised
once, and tokens are marked by their character offsets, so tokens are never glued from separately tokenised pieces.
A system prompt that the template injects is part of `asked` and so never trained. Templates' own `{% generation %}`
masks are not used: most templates lack them and then return all zeros with only a warning.

Some templates rewrite earlier turns once later ones exist (they drop the reasoning, for instance). Then `answered`
is no prefix of the whole, and the conversation becomes one sample per trained turn, each ending with it, which is
exactly what the model sees when it is used.

Without a chat template an instruction becomes

    ### Instruction:\n...\n\n### Input:\n...\n\n### Response:\n  <answer><eos>
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from bitnet_train.errors import DataError
from bitnet_train.train.examples import Conversation, Instruction, Message
from bitnet_train.train.special_tokens import bos_token


@dataclass(frozen=True)
class Rendered:
    """A text and the half-open character ranges of it that are trained; `leading_bos` asks for a BOS before it."""

    text: str
    trained: tuple[tuple[int, int], ...]
    leading_bos: bool = False
    where: str = ""


@dataclass(frozen=True)
class Tokens:
    """int32 `ids` [num_tokens] and bool `trained` [num_tokens]."""

    ids: np.ndarray
    trained: np.ndarray


def render(example: Conversation | Instruction, tokenizer: PreTrainedTokenizerBase) -> list[Rendered]:
    """Return the samples of one example; nearly always one.

    Raises DataError when the tokenizer has no chat template for a conversation, or its template cannot be followed.
    """
    if tokenizer.chat_template:
        conversation = example if isinstance(example, Conversation) else example.as_conversation()
        return render_conversation(conversation, tokenizer)
    if isinstance(example, Instruction):
        return [render_instruction(example, tokenizer)]
    raise DataError(
        f"{example.where}: chat rows need a tokenizer with a chat template, and this one has none.\n"
        "Use an instruct model's tokenizer, or give prompt and answer fields (`data.kind=instruction`)."
    )


def render_instruction(example: Instruction, tokenizer: PreTrainedTokenizerBase) -> Rendered:
    """Render without a chat template; the answer and the end-of-text token after it are trained."""
    parts = [example.system] if example.system else []
    parts.append(f"### Instruction:\n{example.prompt}")
    if example.input:
        parts.append(f"### Input:\n{example.input}")
    asked = "\n\n".join([*parts, "### Response:\n"])
    text = asked + example.answer + str(tokenizer.eos_token or "")
    return Rendered(text, ((len(asked), len(text)),), leading_bos=True, where=example.where)


def render_conversation(example: Conversation, tokenizer: PreTrainedTokenizerBase) -> list[Rendered]:
    """Render a chat; the assistant's turns are trained, each up to and including its end token."""
    messages = example.messages
    whole = _render(messages, tokenizer, example.where)
    spans, stable = [], True
    for i, message in enumerate(messages):
        if message.trained:
            answered, span = _answer(messages[: i + 1], tokenizer, example.where)
            stable = stable and whole.startswith(answered)
            spans.append((answered, span))
    if stable:
        return [Rendered(whole, tuple(span for _, span in spans), where=example.where)]
    return [Rendered(answered, (span,), where=example.where) for answered, span in spans]


def tokenise(rendered: Rendered, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Tokenise once and mark every token that overlaps a trained range.

    Raises DataError when no token is trained, or the tokenizer cannot report offsets.
    """
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} cannot report character offsets; use a fast tokenizer.")
    encoded = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = np.asarray(encoded["input_ids"], dtype=np.int32)
    starts, ends = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2).T
    trained = np.zeros(len(ids), dtype=bool)
    for first, last in rendered.trained:
        trained |= (ends > first) & (starts < last)
    if not trained.any():
        raise DataError(f"{rendered.where}: no token to learn from; the answer is empty once rendered. Drop the row.")
    bos = bos_token(tokenizer)
    if rendered.leading_bos and bos is not None:
        ids, trained = np.insert(ids, 0, bos), np.insert(trained, 0, False)
    return Tokens(ids, trained)


def segments(ids: np.ndarray, trained: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, bool]]:
    """Decode runs of equal `trained` flags: [(text, is trained)], for people to look at."""
    if len(ids) == 0:
        return []
    edges = np.flatnonzero(np.diff(trained.astype(np.int8))) + 1
    runs = zip(np.split(ids, edges), np.split(trained, edges), strict=True)
    return [(str(tokenizer.decode(part.tolist())), bool(flags[0])) for part, flags in runs]


def _render(messages: tuple[Message, ...], tokenizer: PreTrainedTokenizerBase, where: str, *, ask: bool = False) -> str:
    turns: list[dict[str, Any]] = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask))
    except Exception as error:  # templates raise whatever Jinja and their authors like
        roles = ", ".join(message.role for message in messages) or "none"
        raise DataError(f"{where}: the chat template refused the turns ({roles}): {error}") from error


def _answer(
    messages: tuple[Message, ...], tokenizer: PreTrainedTokenizerBase, where: str
) -> tuple[str, tuple[int, int]]:
    """Return the text up to and including the last turn, and the range of it that is the answer."""
    asked = _render(messages[:-1], tokenizer, where, ask=True)
    answered = _render(messages, tokenizer, where)
    if not answered.startswith(asked):
        raise DataError(
            f"{where}: the chat template does not render turn {len(messages)} as a continuation of its generation"
            f" prompt ({asked[-60:]!r}), so its answer cannot be told from its prompt.\nA chat must not begin with the"
            " assistant; otherwise use another template (`tokenizer.chat_template`)."
        )
    return answered, (len(asked), _end_of_turn(answered, len(asked), tokenizer))


def _end_of_turn(text: str, start: int, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return where the answer ends: after its last special token if only white space follows, else at the end."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    stripped = text.rstrip()
    ends_special = len(stripped) > start and any(stripped.endswith(token) for token in special)
    return len(stripped) if ends_special else len(text)
