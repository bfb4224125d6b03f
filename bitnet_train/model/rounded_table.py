"""The token embedding and the head as tables that train rounded to few bits, and the rounding of all that is not 1-bit.

    training     y = W[ids],  y = x W^T + b        W = scale * codes, float32 (or the arithmetic of autocast)
    evaluation   the same rows; the head computes integers as the packed one will (`kernels.reference_int8`)

A module's `weight` *is* the rounded table, at every step: conversion rounds it, and the optimiser, which keeps what it
would be in float32, rounds it again after each of its steps (`train.loop.optim`). The straight-through estimator costs
the forward nothing that way, and `table_codes(weight, bits)` finds the very codes (`quant.table`): int8, of 8 bits, or
of 5 or 4. Training leaves the inputs of the head as they are: evaluation takes them to 16 bits, which is far below what
8 bits of weights show.

Only a plain `nn.Embedding` and `nn.Linear` become tables, as a subclass may do more than look rows up. Everything else
outside the 1-bit layers is rounded to bfloat16 (`quant.stored`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.errors import ConversionError
from bitnet_train.kernels import reference_int8
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.bit_linear import uses_kernels
from bitnet_train.model.convert import is_tied
from bitnet_train.model.int8_table import Int8Linear
from bitnet_train.model.version_cache import VersionCache
from bitnet_train.quant.scheme import TABLE_BITS, TableType
from bitnet_train.quant.stored import Stored, round_in_place
from bitnet_train.quant.table import table_codes


class RoundedEmbedding(nn.Embedding):
    """Table look-up whose weight [V, K] holds int8 values times a scale a row: rows are exact as they are."""

    stored: TableType = "int8"

    @classmethod
    def taking_over(cls, embedding: nn.Embedding, stored: TableType = "int8") -> Self:
        """Make one with the very parameter and mode of another."""
        made = cls(*embedding.weight.shape, padding_idx=embedding.padding_idx, _weight=embedding.weight)
        made.weight, made.stored = embedding.weight, stored
        return made.train(embedding.training)


class RoundedLinear(nn.Linear):
    """A head [.., K] -> [.., V] whose weight holds int8 values times a scale a row; integers in evaluation."""

    stored: TableType = "int8"

    @classmethod
    def taking_over(cls, linear: nn.Linear, stored: TableType = "int8") -> Self:
        """Make one with the very parameters and mode of another."""
        made = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        made.weight, made.bias, made.stored = linear.weight, linear.bias, stored
        return made.train(linear.training)

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: str | None = None) -> None:
        super().__init__(in_features, out_features, bias=bias, device=device)
        self._codes_cache, self._packed_cache = VersionCache(), VersionCache()

    def forward(self, input: Tensor) -> Tensor:
        """Input float [.., K] to [.., V] in its dtype (under autocast in training: of the matmul)."""
        return F.linear(input, self.weight, self.bias) if self.training else self._from_codes(input)

    @torch.no_grad()
    def _from_codes(self, x: Tensor) -> Tensor:
        codes, scale = self._codes_cache.get((self.weight,), lambda: table_codes(self.weight, TABLE_BITS[self.stored]))
        if uses_kernels(x):
            watched = (codes, scale) if self.bias is None else (codes, scale, self.bias)
            return self._packed_cache.get(watched, lambda: Int8Linear.from_codes(codes, scale, self.bias))(x)
        rows = x.reshape(-1, self.in_features).float()
        y = reference_int8.int8_linear(rows, codes, scale.float(), self.bias)
        return y.reshape(*x.shape[:-1], self.out_features).to(x.dtype)

    def train(self, mode: bool = True) -> Self:
        """Switch between the training and the evaluation forward; training forgets what was kept."""
        if mode:
            self._codes_cache.clear()
            self._packed_cache.clear()
        return super().train(mode)


ROUNDED = (RoundedEmbedding, RoundedLinear)


def table_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the token embedding and the head, where they can be tables: plain modules, of a tied pair both."""
    sought = (model.get_input_embeddings(), model.get_output_embeddings())
    modules: dict[str, nn.Module] = dict(model.named_modules())
    ends = {name: module for name, module in modules.items() if any(module is end for end in sought)}
    fitting = tuple(name for name, module in ends.items() if _is_plain(module))
    return () if is_tied(model) and len(fitting) < len(ends) else fitting


def _is_plain(module: nn.Module) -> bool:
    if type(module) is nn.Embedding:
        return module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
    return type(module) in (nn.Linear, *ROUNDED)


def put_tables(model: PreTrainedModel, names: Iterable[str], stored: TableType = "int8") -> None:
    """Replace these modules by tables with the same parameters, in place; their values stay.

    Raises ConversionError for a name that is neither a plain embedding nor a plain linear.
    """
    modules = dict(model.named_modules())
    for name in names:
        module = modules.get(name)
        if isinstance(module, nn.Embedding) and type(module) in (nn.Embedding, RoundedEmbedding):
            model.set_submodule(name, RoundedEmbedding.taking_over(module, stored), strict=True)
        elif isinstance(module, nn.Linear) and type(module) in (nn.Linear, RoundedLinear):
            model.set_submodule(name, RoundedLinear.taking_over(module, stored), strict=True)
        else:
            raise ConversionError(f"{type(model).__name__} has no plain embedding or linear {name} to make a table of.")


def round_floats(model: PreTrainedModel, stored: TableType = "int8") -> tuple[str, ...]:
    """Round everything outside the 1-bit layers, in place, tables as given, and return the names of the tables.

    Raises ConversionError for a table that is not finite.
    """
    names = table_names(model)
    put_tables(model, names, stored)
    round_parameters(model)
    return names


@torch.no_grad()
def round_parameters(module: nn.Module) -> None:
    """Round every parameter outside the 1-bit weights of a model or a part of one to what is stored, in place."""
    for parameter, stored in stored_parameters(module):
        if not parameter.is_meta:
            round_in_place(parameter, stored)


def stored_parameters(module: nn.Module, outside: str | None = None) -> Iterator[tuple[nn.Parameter, Stored]]:
    """Every parameter that is stored rounded, once, and to what; latents, scales and LoRA factors are not.

    `outside` names a part that is left out, such as the list of blocks.
    """
    tables: dict[int, Stored] = {id(part.weight): part.stored for part in module.modules() if isinstance(part, ROUNDED)}
    layers = [part for part in module.modules() if isinstance(part, BitLayer)]
    packed = {id(tensor) for layer in layers for tensor in (layer.weight, layer.scale)}
    for name, parameter in module.named_parameters():
        left_out = outside is not None and name.startswith(f"{outside}.")
        if id(parameter) not in packed and "lora_" not in name and not left_out:
            yield parameter, tables.get(id(parameter), "bfloat16")
