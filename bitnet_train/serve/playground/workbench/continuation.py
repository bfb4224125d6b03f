"""One prompt continued by the model as it is and with layers swapped, a token of each in turn.

Both lie in memory at once, as far as they differ: swapping one for the other is a few hundred pointers. Greedy, or
drawn with a generator of the same seed on both sides, so that equal predictions draw equal tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bitnet_train.errors import DataError
from bitnet_train.model.cached_step import cached_step
from bitnet_train.quant.activation import fake_quantize_activation
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.runtime.native.written import Written
from bitnet_train.serve.playground.workbench.measured import ACTIVATION, Measured
from bitnet_train.serve.playground.workbench.opened import Opened
from bitnet_train.serve.playground.workbench.task import Task
from bitnet_train.templates.render import render_chat


class Both:
    """A model whose layers are float or swapped at any moment, at the cost of a pointer each."""

    def __init__(self, opened: Opened, measured: Measured, schemes: Mapping[str, WeightScheme], task: Task) -> None:
        self._layers = {name: opened.layers[name] for name in schemes}
        self._floats = {name: layer.get_parameter("weight") for name, layer in self._layers.items()}
        self._swapped: dict[str, nn.Parameter] = {}
        self._is_swapped = False
        with measured.swapped(task, schemes, tell=True):
            for name, layer in self._layers.items():
                self._swapped[name] = layer.get_parameter("weight")
        linears = [layer for layer in self._layers.values() if not isinstance(layer, nn.Embedding)]
        self._hooks = [layer.register_forward_pre_hook(self._round) for layer in linears]

    def use(self, side: str) -> None:
        """Have the model compute as `original` or as `swapped`."""
        self._is_swapped = side == "swapped"
        weights = self._swapped if self._is_swapped else self._floats
        for name, layer in self._layers.items():
            layer._parameters["weight"] = weights[name]

    def close(self) -> None:
        """Leave the model as it was."""
        self.use("original")
        for hook in self._hooks:
            hook.remove()

    def _round(self, _module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (fake_quantize_activation(inputs[0], ACTIVATION), *inputs[1:]) if self._is_swapped else None


@dataclass
class _Side:
    name: str
    pending: Tensor
    written: Written
    draw: Callable[[Tensor], int]
    cache: Any = None
    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    has_ended: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def told(self) -> dict[str, Any]:
        tokens = [{"token_id": number, "text": text} for number, text in zip(self.ids, self.pieces, strict=True)]
        return {"text": self.text, "tokens": tokens}


def continuation(opened: Opened, measured: Measured, task: Task, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Continue the prompt on both sides, telling every token; `parts_at` is the first index at which they differ."""
    schemes = opened.schemes(asked["choice"]) if asked["choice"] else {}
    ids = _prompt_ids(opened, asked)
    room = len(ids) + int(asked["max_new_tokens"])
    if opened.context_tokens is not None and room > opened.context_tokens:
        raise DataError(
            f"The prompt has {len(ids)} tokens and {asked['max_new_tokens']} are to follow, and this model takes "
            f"{opened.context_tokens} in all. Shorten the prompt, or ask for fewer."
        )
    both = Both(opened, measured, schemes, task)
    sides = [_side(name, opened, ids, asked) for name in ("original", "swapped")]
    try:
        with torch.inference_mode(), task.interruptible():
            for index in range(int(asked["max_new_tokens"])):
                for side in sides:
                    if not side.has_ended:
                        both.use(side.name)
                        _step(opened, task, side, index, is_last=index + 1 == asked["max_new_tokens"])
                task.progress(index + 1, int(asked["max_new_tokens"]), "tokens")
    finally:
        both.close()
    original, swapped = sides
    return {
        "prompt_tokens": len(ids),
        "original": original.told(),
        "swapped": swapped.told(),
        "parts_at": parts_at(original.ids, swapped.ids),
    }


def parts_at(first: Sequence[int], second: Sequence[int]) -> int | None:
    """Return the first index at which two texts differ; one that ends earlier differs there; None for equal ones."""
    differing = (index for index, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return next(differing, None if len(first) == len(second) else min(len(first), len(second)))


def _step(opened: Opened, task: Task, side: _Side, index: int, *, is_last: bool) -> None:
    output, side.cache = cached_step(opened.model, side.pending, side.cache)
    token = side.draw(output.logits[0, -1].float())
    side.pending = torch.tensor([[token]])
    side.ids.append(token)
    side.pieces.append("")
    side.has_ended = token in _ends(opened)
    if not side.has_ended:
        side.written.push(token)
    if side.has_ended or is_last:
        side.written.finish()
    task.say("piece", side=side.name, index=index, token_id=token, text=side.pieces[-1])


def _side(name: str, opened: Opened, ids: list[int], asked: Mapping[str, Any]) -> _Side:
    tokenizer, side = opened.tokenizer, _Side(name, torch.tensor([ids]), Written(str), _drawing(asked))

    def receive(text: str) -> None:
        side.pieces[-1] += text

    side.written = Written(lambda some: str(tokenizer.decode(list(some), skip_special_tokens=True)), (), receive)
    return side


def _drawing(asked: Mapping[str, Any]) -> Callable[[Tensor], int]:
    temperature = float(asked["temperature"])
    if temperature == 0:
        return lambda logits: int(logits.argmax())
    generator = torch.Generator().manual_seed(int(asked["seed"]))

    def draw(logits: Tensor) -> int:
        return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))

    return draw


def _prompt_ids(opened: Opened, asked: Mapping[str, Any]) -> list[int]:
    tokenizer, prompt = opened.tokenizer, str(asked["prompt"])
    if asked["chat"]:
        if not tokenizer.chat_template:
            raise DataError("This model has no chat template. Continue the text as it stands instead.")
        system = [{"role": "system", "content": asked["system"]}] if asked.get("system") else []
        prompt = render_chat(tokenizer, [*system, {"role": "user", "content": prompt}])
    ids = list(tokenizer(prompt, add_special_tokens=not asked["chat"], verbose=False)["input_ids"])
    if not ids:
        raise DataError("The prompt is empty: there is nothing to continue. Give at least one character.")
    return ids


def _ends(opened: Opened) -> set[int]:
    ends = opened.model.generation_config.eos_token_id if opened.model.generation_config is not None else None
    return set(ends) if isinstance(ends, list) else {ends} if ends is not None else set()
