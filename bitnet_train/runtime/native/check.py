"""A level of `validate`: the native runtime computes what the Hugging Face path of the same folder computes.

Both compute the same integer products; the float32 operations between them (norms, attention, SwiGLU) are summed in
another order. Such a difference is about 2^-24 of a value, and would stay there, but every packed layer rounds its
input to codes: an input that lies within that distance of a rounding boundary gets another code, and that moves it by
a whole step, max|x| / 127 for int8 (of sign, to the other sign). A moved code moves the inputs of later
layers by far more than 2^-24, so more codes move there, until the difference has the size of quantisation noise. No
bound far below that noise can hold, for any two correct programs; what the noise comes to depends on the weights. So
it is measured, on the Hugging Face path alone, which is run again with what rounding may do:

    every input of a packed layer times 1 + u, u uniform in +-16 * 2^-24     a sum of K terms errs by some sqrt(K) 2^-24
    one code of every token moved by one step in the first packed layer      so that the bound does not depend on luck

Compared is the difference of the logits in two figures: `typical`, the root mean square over the vocabulary averaged
over the tokens, and `largest`, the maximum. The native runtime must stay within

    typical <= 1.5 * the noise's + floor        1.5: on real models two draws of the noise differ by up to 1.3
    largest <= 2 * the noise's + floor          the maximum over some 10^6 values has a long tail
    floor = hidden * 2^-24 * max|logit|         the rounding of the head's own sum

A rope that is off, two layers swapped or a missing window exceed the first (`tests/runtime/native/test_check.py`). An
error as small as one flipped bit does not: that is what the exact levels are for.

Greedy tokens: each prompt is continued by both. Where the two choose differently after the same text, the Hugging Face
logits of the two tokens must lie within 6 times the bound on `typical` (four deviations of a difference of two logits);
the widest such margin is reported. Hugging Face differs from itself in the same way: a text read at once and the same
text read token by token are summed in another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.errors import FormatError
from bitnet_train.model.packed_linear import PackedLinear
from bitnet_train.progress import track
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import ActivationScheme
from bitnet_train.runtime.check_model import Subject, greedy_continuation
from bitnet_train.runtime.load import load_tokenizer
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.runtime.native.support import reason_against
from bitnet_train.runtime.prompts import PROMPTS
from bitnet_train.runtime.validation_report import Figure, Level

LEVEL = "native"

_DRAWS = 3
_ULPS = 16
_TYPICAL_FACTOR = 1.5
_LARGEST_FACTOR = 2.0
_MARGIN_FACTOR = 6.0
_PROMPTS = 10
_LOGIT_PROMPTS = 5
_ROW_TOKENS = 64  # of the held-out text; each is computed five times


@dataclass(frozen=True)
class Spread:
    """How far apart two arrays of logits are: see `typical` and `largest` above."""

    typical: float
    largest: float

    @classmethod
    def between(cls, actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Spread:
        """Measure arrays [L, V], one a text; a value that is not finite makes both infinite."""
        if not all(np.isfinite(array).all() for array in (*actual, *expected)):
            return cls(float("inf"), float("inf"))
        difference = np.concatenate([a - b for a, b in zip(actual, expected, strict=True)]).astype(np.float64)
        return cls(float(np.sqrt((difference**2).mean(-1)).mean()), float(np.abs(difference).max()))


@dataclass(frozen=True)
class Tolerance:
    """What the native runtime may be away from the Hugging Face path."""

    typical: float
    largest: float

    def fault(self, spread: Spread) -> str | None:
        """Say which figure is exceeded, or nothing."""
        if spread.typical > self.typical:
            return f"logits: they differ typically by {spread.typical:.3g}, and rounding explains {self.typical:.3g}"
        if spread.largest > self.largest:
            return f"logits: one differs by {spread.largest:.3g}, and rounding explains {self.largest:.3g}"
        return None


def check_native(subject: Subject, folder: Path, batches: Sequence[Tensor], new_tokens: int) -> Level:
    """Compare the native runtime with `subject.packed` on token ids [B, L], and `new_tokens` greedy ones per prompt.

    The first ten rows of `batches` are the prompts, the last row held-out text; logits are those of five prompts and
    that row. Not applicable, and passed, where the folder does not fit the native runtime.
    """
    try:
        reason = reason_against(folder)
        if reason is not None:
            return Level(LEVEL, f"not applicable: {reason}")
        native = NativeModel.load(folder, num_threads=torch.get_num_threads(), verify=False)
    except FormatError as error:
        return Level(LEVEL, f"not run: {error}", {}, f"not run: {error}")
    rows = [row[: native.max_tokens] for batch in batches for row in batch.tolist()]
    return _compare(subject.packed, native, rows[:_PROMPTS], rows[-1][:_ROW_TOKENS], new_tokens)


def _compare(
    model: PreTrainedModel, native: NativeModel, prompts: list[list[int]], text: list[int], new_tokens: int
) -> Level:
    texts = [*prompts[:_LOGIT_PROMPTS], text]
    expected = _logits(model, texts)
    tolerance = rounding_tolerance(model, texts, expected)
    spread = Spread.between([native.logits(ids) for ids in track(texts, "Native logits", len(texts))], expected)
    greedy = Greedy(model, native, tolerance)
    failures = [
        _differing_ids(native),
        tolerance.fault(spread),
        greedy.compare(prompts, min(new_tokens, native.max_tokens - max(map(len, prompts)))),
    ]
    figures: dict[str, Figure] = {
        "typical_difference": spread.typical,
        "typical_allowed": tolerance.typical,
        "max_abs_difference": spread.largest,
        "max_abs_allowed": tolerance.largest,
        **greedy.figures(),
    }
    detail = f"token ids, logits and greedy tokens of the native runtime with those of torch{greedy.told()}"
    return Level(LEVEL, detail, figures, next((failure for failure in failures if failure), None))


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


def rounding_tolerance(model: nn.Module, texts: Sequence[list[int]], expected: Sequence[np.ndarray]) -> Tolerance:
    """Measure what rounding may do to the logits `expected` of `texts`; see the top of this module."""
    spreads = [Spread.between(_noisy_logits(model, texts, seed), expected) for seed in range(_DRAWS)]
    highest = max(float(np.abs(logits).max()) for logits in expected)
    floor = float(_hidden_size(model)) * 2.0**-24 * highest
    return Tolerance(
        _TYPICAL_FACTOR * max(spread.typical for spread in spreads) + floor,
        _LARGEST_FACTOR * max(spread.largest for spread in spreads) + floor,
    )


class Greedy:
    """Compares greedy continuations and keeps count."""

    def __init__(self, model: PreTrainedModel, native: NativeModel, tolerance: Tolerance) -> None:
        self._model, self._native = model, native
        self._allowed = _MARGIN_FACTOR * tolerance.typical
        self._num_tokens = self._num_differing = 0
        self._widest = 0.0

    @torch.no_grad()
    def compare(self, prompts: Sequence[list[int]], new_tokens: int) -> str | None:
        """Continue each prompt; return the first difference that rounding does not explain."""
        faults = [
            self._compare_one(prompt, new_tokens)
            for prompt in track(prompts, "Native tokens", len(prompts))
            if new_tokens > 0
        ]
        return next((fault for fault in faults if fault), None)

    def figures(self) -> dict[str, Figure]:
        """Return the counts; a margin is in logits."""
        counted: dict[str, Figure] = {"greedy_tokens": self._num_tokens, "greedy_differing": self._num_differing}
        return counted | ({"widest_margin": self._widest} if self._num_differing else {})

    def told(self) -> str:
        """Say in words what differed and was explained."""
        if not self._num_differing:
            return ""
        return f"; {self._num_differing} of {self._num_tokens} choices fell between two almost equal logits"

    def _compare_one(self, prompt: list[int], new_tokens: int) -> str | None:
        """Both continue on their own, and native also chooses after every prefix of what torch wrote."""
        whole = greedy_continuation(self._model, torch.tensor([prompt]), new_tokens)[0].tolist()
        written = whole[len(prompt) :]
        chosen = self._native.logits(whole[:-1])[len(prompt) - 1 :].argmax(-1).tolist()
        alone = self._native.generate_ids(prompt, new_tokens, stop_ids=())
        differing = {at for at, (one, other) in enumerate(zip(chosen, written, strict=True)) if one != other}
        astray = next((at for at in range(min(differing, default=new_tokens)) if alone[at] != written[at]), None)
        if astray is not None:  # the same text before it, and another choice than after reading that text at once
            differing, chosen[astray] = {*differing, astray}, alone[astray]
        self._num_tokens += new_tokens
        self._num_differing += len(differing)
        return self._unexplained(prompt, whole, chosen, sorted(differing)) if differing else None

    def _unexplained(self, prompt: list[int], whole: list[int], chosen: list[int], differing: list[int]) -> str | None:
        logits = _logits(self._model, [whole[:-1]])[0][len(prompt) - 1 :]
        for at in differing:
            token_id = whole[len(prompt) + at]
            margin = float(logits[at, token_id] - logits[at, chosen[at]])
            self._widest = max(self._widest, margin)
            if not margin <= self._allowed:
                return (
                    f"prompt {prompt}, new token {at}: {chosen[at]} instead of {token_id}, by a margin of "
                    f"{margin:.3g} where rounding explains {self._allowed:.3g}"
                )
        return None


@torch.no_grad()
def _logits(model: Any, texts: Sequence[list[int]]) -> list[np.ndarray]:
    return [model(torch.tensor([text]), use_cache=False).logits[0].numpy() for text in texts]


def _noisy_logits(model: nn.Module, texts: Sequence[list[int]], seed: int) -> list[np.ndarray]:
    with _rounding_noise(model, seed):
        return _logits(model, texts)


@contextmanager
def _rounding_noise(model: nn.Module, seed: int) -> Iterator[None]:
    """While the block runs, disturb the inputs of packed layers as rounding may."""
    generator = torch.Generator().manual_seed(seed)
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]

    def disturb(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        x = inputs[0]
        noise = 2 * torch.rand(x.shape, generator=generator) - 1
        x = x * (1 + _ULPS * 2.0**-24 * noise)
        return (move_one_code(x, layers[0].activation, generator) if layer is layers[0] else x,)

    handles = [layer.register_forward_pre_hook(disturb) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def move_one_code(x: Tensor, activation: ActivationScheme, generator: torch.Generator) -> Tensor:
    """Return x [.., K] with one value of every token moved so that its code is the next one; the scale stays."""
    rows = x.reshape(-1, x.shape[-1])
    largest_at = rows.abs().argmax(-1, keepdim=True)
    other = (largest_at + torch.randint(1, max(2, rows.shape[1]), largest_at.shape, generator=generator)) % rows.shape[
        1
    ]
    value = rows.gather(1, other)
    _, step = quantize_activation(rows, activation)
    moved = -value if activation.name == "sign" else value - torch.where(value >= 0, step, -step)
    return rows.scatter(1, other, moved).reshape(x.shape)


def _hidden_size(model: Any) -> int:
    return int(model.config.get_text_config().hidden_size)
