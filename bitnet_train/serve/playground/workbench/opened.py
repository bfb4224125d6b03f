"""A model that was opened: its layers as the page lists them, and what a choice of them is.

A choice maps names of layers to words of `schemes`; what it does not name stays float. Bytes count a weight that stays
float as two, a weight that two layers share once, as long as both are float.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch import nn

from bitnet_train.errors import ConversionError
from bitnet_train.importers.load import LoadedModel, load_pretrained, source_bytes
from bitnet_train.model.config_fields import text_config
from bitnet_train.model.convert import plan_of_converted
from bitnet_train.model.patterns import BY_NAME_ONLY, ROLES
from bitnet_train.model.select import candidates, layer_roles
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.sensitivity.scan import FLOAT_BYTES, total_bytes
from bitnet_train.serve.playground.schemes import FLOAT, SCHEMES, scheme_for

_BLOCK = re.compile(r"\.(\d+)\.")
_LEAVES = {
    "q": ("q_proj", "query", "wq", "q"),
    "k": ("k_proj", "key", "wk", "k"),
    "v": ("v_proj", "value", "wv", "v"),
    "o": ("o_proj", "out_proj", "wo", "dense", "o"),
    "gate": ("gate_proj", "w1"),
    "up": ("up_proj", "w3", "c_fc", "fc1", "fc_in", "dense_h_to_4h"),
    "down": ("down_proj", "w2", "fc2", "fc_out", "dense_4h_to_h"),
}
_BY_LEAF = {leaf: role for role, leaves in _LEAVES.items() for leaf in leaves}


class Opened:
    """See above."""

    def __init__(self, loaded: LoadedModel, num_bytes: int | None) -> None:
        self.loaded, self.num_bytes = loaded, num_bytes
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.layers = candidates(self.model)
        self.roles = layer_roles(self.model, self.layers)

    @classmethod
    def open(cls, source: str) -> Opened:
        """Load a model. Raises what `load_pretrained` raises."""
        return cls(load_pretrained(source), source_bytes(source))

    @property
    def is_one_bit(self) -> bool:
        """Whether its file had 1-bit weights already: then nothing can be swapped."""
        return self.loaded.record is not None

    @property
    def context_tokens(self) -> int | None:
        """The most tokens of a text."""
        found = getattr(text_config(self.model), "max_position_embeddings", None)
        return found if isinstance(found, int) and found > 0 else None

    def describe(self) -> dict[str, Any]:
        """Return what the page is told of it."""
        return {
            "description": self.loaded.description,
            "bytes": self.num_bytes,
            "one_bit": self.is_one_bit,
            "context_tokens": self.context_tokens,
            "has_chat": bool(getattr(self.tokenizer, "chat_template", None)),
            "layers": self._converted() if self.is_one_bit else [self._described(name) for name in self.layers],
        }

    def schemes(self, choice: Mapping[str, str]) -> dict[str, WeightScheme]:
        """Return the scheme of every layer that a choice swaps. Raises ConversionError for one that cannot be."""
        if self.is_one_bit:
            raise ConversionError("The weights of this model are 1-bit already, so nothing is left to swap.")
        found: dict[str, WeightScheme] = {}
        for name, word in choice.items():
            self._check(name, word)
            scheme = scheme_for(word, self.shapes[name][1])
            if scheme is not None:
                found[name] = scheme
        return {name: found[name] for name in self.layers if name in found}

    def swappable(self, name: str) -> bool:
        """Whether a layer may become something else: of the language model, and its weight a matrix of floats."""
        return self.roles[name] not in BY_NAME_ONLY and name in self.shapes

    def bytes_with(self, schemes: Mapping[str, WeightScheme]) -> int:
        """Return the bytes of the whole model with these layers swapped."""
        weights = {name: layer.get_parameter("weight") for name, layer in self.layers.items()}
        of_layers = {id(weight) for weight in weights.values()}
        rest = {id(part): part.numel() for part in self.model.parameters() if id(part) not in of_layers}
        floats = {id(weight): weight.numel() for name, weight in weights.items() if name not in schemes}
        return FLOAT_BYTES * (sum(rest.values()) + sum(floats.values())) + total_bytes(schemes, self.shapes)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """N and K of every layer: outputs and inputs; of GPT-2's Conv1D, which lies the other way round, too."""
        return {name: _shape(layer) for name, layer in self.layers.items()}

    @cached_property
    def one_bit_choice(self) -> dict[str, str]:
        """All decoder layers at one bit, as `convert` has them without being told."""
        return {name: "binary" for name, role in self.roles.items() if role in ("attention", "mlp")}

    def _check(self, name: str, word: str) -> None:
        if name not in self.layers:
            raise ConversionError(f"`choice`: this model has no layer `{name[:200]}`.")
        if word not in SCHEMES:
            raise ConversionError(f"`choice.{name}={word[:40]}` is no scheme. Allowed: {', '.join(SCHEMES)}.")
        if word != FLOAT and not self.swappable(name):
            raise ConversionError(f"`choice.{name}`: this layer stays float: {BY_NAME_ONLY[self.roles[name]]}.")

    def _described(self, name: str) -> dict[str, Any]:
        num_outputs, num_inputs = self.shapes[name]
        weights = num_outputs * num_inputs
        sizes = {word: self._bytes(name, word) for word in SCHEMES}
        return _row(name, self.roles[name], (num_outputs, num_inputs), weights, sizes, self.swappable(name))

    def _bytes(self, name: str, word: str) -> int:
        scheme = scheme_for(word, self.shapes[name][1])
        if scheme is None:
            return FLOAT_BYTES * self.shapes[name][0] * self.shapes[name][1]
        return total_bytes({name: scheme}, self.shapes)

    def _converted(self) -> list[dict[str, Any]]:
        rows = []
        for row in plan_of_converted(self.model).rows:
            weights = row.shape[0] * row.shape[1]
            size = (
                FLOAT_BYTES * weights
                if row.scheme is None
                else total_bytes({row.name: row.scheme}, {row.name: row.shape})
            )
            rows.append(_row(row.name, row.role, row.shape, weights, {"as_it_is": size}, False))
        return rows


def _row(
    name: str, role: str, shape: tuple[int, int], weights: int, sizes: dict[str, int], swappable: bool
) -> dict[str, Any]:
    block = _BLOCK.search(f".{name}.")
    return {
        "name": name,
        "role": _role(name, role),
        "part": role,
        "block": int(block[1]) if block else None,
        "shape": list(shape),
        "weights": weights,
        "bytes": sizes,
        "swappable": swappable,
        "cost": None,
    }


def _role(name: str, role: str) -> str:
    if role not in ROLES or role in ("head", "embedding"):
        return role if role in ROLES else "other"
    return _BY_LEAF.get(name.rpartition(".")[2].lower(), "other")


def _shape(layer: nn.Module) -> tuple[int, int]:
    from transformers.pytorch_utils import Conv1D

    first, second = layer.get_parameter("weight").shape
    return (second, first) if isinstance(layer, Conv1D) else (first, second)
