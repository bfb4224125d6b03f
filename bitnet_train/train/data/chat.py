r"""Render chats and instructions, and find the characters a model is trained to write.

Every trained turn of a conversation is found as `chat_turn` says. The whole conversation is rendered and tokenised
once, and tokens are marked by their character offsets, so tokens are never glued from separately tokenised pieces. A
system prompt that the template injects is part of the prompt and so never trained. Templates' own `{% generation %}`
masks are not used: most templates lack them and then return all zeros with only a warning.

Some templates rewrite earlier turns once later ones exist (they drop the reasoning, for instance), or prompt for a turn
otherwise than they write it. Then a turn is no prefix of the whole, and the conversation becomes one sample per
trained turn, each ending with it, which is exactly what the model sees when it is used.

Without a chat template an instruction becomes

    ### Instruction:\n...\n\n### Input:\n...\n\n### Response:\n  <answer><eos>

and a completion, with or without a template, is  <prompt><answer><eos>.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from bitnet_train.errors import DataError
from bitnet_train.train.data.chat_template import ChatTemplate
from bitnet_train.train.data.chat_turn import answer, note_left_out
from bitnet_train.train.data.examples import Answered, Completion, Conversation, Instruction
from bitnet_train.train.data.special_tokens import bos_token


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


def render(example: Answered, template: ChatTemplate) -> list[Rendered]:
    """Return the samples of one example; nearly always one.

    Raises DataError when the tokenizer has no chat template for a conversation, or its template cannot be followed.
    """
    if isinstance(example, Completion):
        return [render_completion(example, template.tokenizer)]
    if template.exists:
        conversation = example if isinstance(example, Conversation) else example.as_conversation()
        return render_conversation(conversation, template)
    if isinstance(example, Instruction):
        return [render_instruction(example, template.tokenizer)]
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


def render_completion(example: Completion, tokenizer: PreTrainedTokenizerBase) -> Rendered:
    """Render prompt and answer as they stand; the answer and the end-of-text token after it are trained."""
    eos = str(tokenizer.eos_token or "")
    end = "" if eos and example.answer.endswith(eos) else eos
    text = example.prompt + example.answer + end
    return Rendered(text, ((len(example.prompt), len(text)),), leading_bos=True, where=example.where)


def render_conversation(example: Conversation, template: ChatTemplate) -> list[Rendered]:
    """Render a chat; the assistant's turns are trained, each up to and including its end token."""
    template.note_unread(example.messages, example.tools)
    template.render_ahead(example.messages, example.tools)
    whole = template.text(example.messages, example.tools, example.where)
    turns = [answer(example, i, whole, template) for i, message in enumerate(example.messages) if message.trained]
    longest = max(whole, turns[-1].text, key=len)
    samples = [Rendered(turn.text, (turn.trained,), where=example.where) for turn in turns]
    if all(longest.startswith(turn.text) for turn in turns):
        samples = [Rendered(longest, tuple(turn.trained for turn in turns), where=example.where)]
    note_left_out(example, "\n".join(sample.text for sample in samples), template)
    return samples


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
