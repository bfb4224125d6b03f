"""Examples to token rows, with the figures that say what became of them.

Text is cut into windows (see `chunk`), every token trained. A chat or an instruction is one row, trained on the answer;
cutting it would separate answer and question, so rows longer than the context are dropped and counted, and dropping
all of them is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from bitnet_train.errors import DataError
from bitnet_train.progress import track
from bitnet_train.train.data.chat import Tokens, render, tokenise
from bitnet_train.train.data.chat_template import ChatTemplate
from bitnet_train.train.data.chunk import TokenRows, stack_rows, windows
from bitnet_train.train.data.examples import Document, Example, named_rows
from bitnet_train.train.data.special_tokens import lead_token, pad_token

_TEXTS_AT_ONCE = 64  # handed to the tokenizer together, which works on them in parallel


@dataclass(frozen=True)
class Counts:
    """What became of one split. Padding is counted in whole rows, before batches are cropped."""

    documents: int
    rows: int
    tokens: int  # real tokens in rows; the overlap of windows is counted twice
    trained_tokens: int  # labels
    dropped_tokens: int  # in windows shorter than `min_tokens`
    dropped_rows: int  # chats longer than the context
    padding_share: float  # of rows * context_tokens
    notes: dict[str, int] = field(default_factory=dict)  # what the chat template was given and did not read, in words


def tokenise_examples(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    context_tokens: int,
    min_tokens: int,
    split: str,
    variables: Mapping[str, Any] | None = None,
) -> tuple[TokenRows, Counts]:
    """Return the rows of one split, and its figures. `variables` are given to the chat template.

    Raises DataError when rows existed but none is left.
    """
    ids, trained, dropped_tokens, dropped_rows = [], [], 0, 0
    of_text = bool(examples) and isinstance(examples[0], Document)
    template = ChatTemplate(tokenizer, variables)
    sequences = partial(_of_texts, tokenizer=tokenizer) if of_text else partial(_of_answers, template=template)
    for tokens in _token_sequences(examples, split, sequences):
        if of_text:
            parts = windows(tokens.ids, context_tokens, min_tokens)
            dropped_tokens += _tokens_without_row(len(tokens.ids), len(parts), context_tokens)
            ids += parts
            trained += [np.ones(len(part), dtype=bool) for part in parts]
        elif len(tokens.ids) <= context_tokens:
            ids.append(tokens.ids)
            trained.append(tokens.trained)
        else:
            dropped_rows += 1
    if examples and not ids:
        raise DataError(
            f"The {split} split has {len(examples)} example(s) but no row: {dropped_rows} longer than"
            f" `data.context_tokens={context_tokens}`, the rest shorter than `data.min_tokens={min_tokens}`."
            f" Raise the first or lower the second.{named_rows(examples)}"
        )
    rows = stack_rows(ids, trained, context_tokens, pad_token(tokenizer))
    return rows, _count(rows, len(examples), dropped_tokens, dropped_rows, dict(template.notes))


def _token_sequences(
    examples: Sequence[Example], split: str, to_tokens: Callable[[Sequence[Example]], Iterator[Tokens]]
) -> Iterator[Tokens]:
    groups = [examples[i : i + _TEXTS_AT_ONCE] for i in range(0, len(examples), _TEXTS_AT_ONCE)]
    for group in track(groups, f"tokenising {split}", total=len(groups)):
        yield from to_tokens(group)


def _of_texts(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Iterator[Tokens]:
    """Tokenise documents, each behind BOS (EOS where the tokenizer has no BOS)."""
    texts = [example.text for example in examples if isinstance(example, Document)]
    lead = lead_token(tokenizer)
    for part in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
        ids = np.asarray(part if lead is None else [lead, *part], dtype=np.int32)
        yield Tokens(ids, np.ones(len(ids), dtype=bool))


def _of_answers(examples: Sequence[Example], template: ChatTemplate) -> Iterator[Tokens]:
    for example in examples:
        assert not isinstance(example, Document)
        for rendered in render(example, template):
            yield tokenise(rendered, template.tokenizer)


def _tokens_without_row(num_tokens: int, num_rows: int, context_tokens: int) -> int:
    """Return how many tokens of a document no window holds; windows overlap by one token."""
    covered = min(num_tokens, num_rows * (context_tokens - 1) + 1) if num_rows else 0
    return num_tokens - covered


def _count(rows: TokenRows, documents: int, dropped_tokens: int, dropped_rows: int, notes: dict[str, int]) -> Counts:
    tokens = int(rows.lengths.sum())
    return Counts(
        documents=documents,
        rows=len(rows),
        tokens=tokens,
        trained_tokens=int(rows.trained.sum()),
        dropped_tokens=dropped_tokens,
        dropped_rows=dropped_rows,
        padding_share=round(1 - tokens / rows.input_ids.size, 6) if len(rows) else 0.0,
        notes=notes,
    )
