"""A level of `validate`: the native runtime computes what the Hugging Face path of the same folder computes, exactly.

Both compute the same integer products. The float32 operations between them (norms, rotary angles, attention, SwiGLU,
products with float weights) are lent to the Hugging Face path for the comparison (`shared_operations`), so that what is
left to differ is the wiring, and no difference of it is small enough to pass:

    logits    of held-out texts and of everything that was written, each read at once: the same bits
    tokens    each prompt continued greedily by both, with a cache of keys and values each: the same tokens
    token ids of the built-in prompts by both tokenizers: the same

The lent operations are compared with torch's one by one, within bounds that follow from their roundings, by
`tests/kernels/test_float_ops.py`. What they do to a whole model is reported as figures, and nothing is asked of them:
torch sums in another order, which is about 2^-24 of a value; where that lies at a rounding boundary of a packed layer's
input its code moves by a whole step, and after some layers the difference has the size of quantisation noise. A text
that torch reads at once and the same text read token by token differ by as much.

    torch_typical_difference   root mean square over the vocabulary of the difference of the logits, mean of the tokens
    torch_max_abs_difference   the largest difference of two logits
    torch_other_choices        of the greedy tokens, how many torch would have chosen otherwise
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bitnet_train.errors import BitnetTrainError, FormatError
from bitnet_train.progress import track
from bitnet_train.runtime.load import load_tokenizer
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.runtime.native.support import reason_against
from bitnet_train.validation.check_model import Subject, greedy_continuation
from bitnet_train.validation.differences import difference
from bitnet_train.validation.prompts import PROMPTS
from bitnet_train.validation.report import Figure, Level
from bitnet_train.validation.shared_operations import shared_operations

LEVEL = "native"

_PROMPTS = 10
_TEXT_TOKENS = 512  # of held-out text, so that the level does not take longer than the others


@dataclass(frozen=True)
class NativeText:
    """A prompt, what the native runtime wrote after it, and the logits float32 [L, V] after each of the tokens read."""

    prompt: list[int]
    new: list[int]
    logits: Tensor

    @property
    def read(self) -> list[int]:
        """All tokens but the last, which nothing was computed from."""
        return [*self.prompt, *self.new][: self.logits.shape[0]]


def check_native(subject: Subject, folder: Path, batches: Sequence[Tensor], new_tokens: int) -> Level:
    """Compare the native runtime with `subject.packed` on token ids [B, L], and `new_tokens` greedy ones per prompt.

    The first ten rows of `batches` are the prompts, the last rows held-out text. Not applicable, and passed, where the
    folder does not fit the native runtime.
    """
    try:
        reason = reason_against(folder)
        if reason is not None:
            return Level(LEVEL, f"not applicable: {reason}")
        native = NativeModel.load(folder, num_threads=torch.get_num_threads(), verify=False)
    except FormatError as error:
        return Level(LEVEL, f"not run: {error}", {}, f"not run: {error}")
    rows = [row[: native.max_tokens] for batch in batches for row in batch.tolist()]
    prompts = [row[: max(1, native.max_tokens - new_tokens)] for row in rows[:_PROMPTS]]  # which leaves room to write
    num_new = min(new_tokens, native.max_tokens - max(map(len, prompts)))
    return BothRuntimes(subject.packed, native).run(prompts, _last_tokens(rows, _TEXT_TOKENS), num_new)


class BothRuntimes:
    """A Hugging Face model and the native runtime of the same folder, which must compute the same."""

    def __init__(self, model: PreTrainedModel, native: NativeModel) -> None:
        self._model, self._native = model, native

    @torch.no_grad()
    def run(self, prompts: Sequence[list[int]], texts: Sequence[list[int]], new_tokens: int) -> Level:
        """Compare logits of `texts`, and `new_tokens` greedy tokens after each of `prompts` with their logits."""
        written = [self._write(prompt, new_tokens) for prompt in track(prompts, "Native tokens", len(prompts))]
        try:
            with shared_operations(self._model):
                failures = [_differing_ids(self._native), *self._failures(texts, written)]
        except BitnetTrainError as error:
            return Level(LEVEL, f"not run: {error}", {}, f"not run: {error}")
        figures: dict[str, Figure] = {
            "logit_tokens": sum(map(len, texts)) + sum(len(text.read) for text in written),
            "greedy_tokens": sum(len(text.new) for text in written),
            **self._beside_torch(written),
        }
        detail = (
            "token ids, logits and greedy tokens of the native runtime with those of transformers, which was lent its "
            "float operations; tolerance 0. The torch_ figures tell how far torch's own operations are from them"
        )
        return Level(LEVEL, detail, figures, next((failure for failure in failures if failure), None))

    def _write(self, prompt: list[int], new_tokens: int) -> NativeText:
        new = self._native.generate_ids(prompt, new_tokens, stop_ids=()) if new_tokens else []
        return NativeText(prompt, new, self._native_logits([*prompt, *new[:-1]]))

    def _failures(self, texts: Sequence[list[int]], written: Sequence[NativeText]) -> list[str | None]:
        return [
            *(self._text_failure(text) for text in track(texts, "Native logits", len(texts))),
            *(self._written_failure(text) for text in track(written, "Native tokens", len(written))),
        ]

    def _text_failure(self, text: list[int]) -> str | None:
        how = _differing_logits(self._native_logits(text), self._logits(text))
        return f"held-out text: {how}" if how else None

    def _written_failure(self, text: NativeText) -> str | None:
        """Continue the prompt with a cache, then read the whole at once."""
        prompt = torch.tensor([text.prompt])
        expected = greedy_continuation(self._model, prompt, len(text.new))[0, prompt.shape[1] :].tolist()
        at = next((at for at, (one, other) in enumerate(zip(text.new, expected, strict=True)) if one != other), None)
        if at is not None:
            return f"prompt {text.prompt}, new token {at}: {text.new[at]} instead of {expected[at]}"
        how = _differing_logits(text.logits, self._logits(text.read))
        return f"prompt {text.prompt} and what follows it: {how}" if how else None

    def _beside_torch(self, written: Sequence[NativeText]) -> dict[str, Figure]:
        """Measure the distance to the same model with torch's own float operations."""
        own = [self._logits(text.read) for text in written]
        away = torch.cat([text.logits - logits for text, logits in zip(written, own, strict=True)]).double()
        chosen = [logits[len(text.prompt) - 1 :].argmax(-1) for text, logits in zip(written, own, strict=True)]
        other = [
            sum(int(one != two) for one, two in zip(text.new, choices.tolist(), strict=False))
            for text, choices in zip(written, chosen, strict=True)
        ]
        return {
            "torch_typical_difference": float(away.square().mean(-1).sqrt().mean()),
            "torch_max_abs_difference": float(away.abs().max()),
            "torch_other_choices": sum(other),
        }

    def _logits(self, text: list[int]) -> Tensor:
        output: Any = self._model(torch.tensor([text]), use_cache=False)
        return output.logits[0]

    def _native_logits(self, text: list[int]) -> Tensor:
        return torch.from_numpy(self._native.logits(text))


def _last_tokens(rows: Sequence[list[int]], num_tokens: int) -> list[list[int]]:
    """Return the last of `rows` that hold `num_tokens` tokens together, the first of them cut at its end."""
    texts: list[list[int]] = []
    for row in reversed(rows):
        left = num_tokens - sum(map(len, texts))
        if left <= 0:
            break
        texts.append(row[:left])
    return texts


def _differing_logits(actual: Tensor, expected: Tensor) -> str | None:
    """Return where logits [L, V] first differ in a bit, if they do."""
    how = difference(actual, expected)
    return f"logits: {how} (position, token)" if how else None


def _differing_ids(native: NativeModel) -> str | None:
    """Return the first prompt that the native tokenizer and that of transformers encode differently, if any."""
    if "tokenizer_config.json" not in native.manifest.files:
        return None
    theirs = load_tokenizer(native.folder)
    for prompt in PROMPTS:
        ours, expected = native.tokens.encode(prompt), list(theirs(prompt)["input_ids"])
        if ours != expected:
            return f"tokenizer: {prompt!r} becomes {ours} instead of {expected}"
    return None
