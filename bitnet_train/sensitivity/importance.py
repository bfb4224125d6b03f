"""How much each input of a layer matters: the mean of its square over the tokens that pass while one listens.

A scale that is fitted with it keeps the few weights that meet huge inputs (arXiv 2411.07191; llama.cpp's importance
matrix is the same figure). One fitted to weights alone cuts them off, and then a trial tells of those, and of little
else. Padding, as the model's `attention_mask` has it, is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def listening(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Give E[x^2], float32 [K], of what each linear of `layers` reads inside the block, by name, once it is over.

    `model` is what is called in the block, and owns the layers. Embeddings read no such input and have none.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    mask: Tensor | None = None

    def see_mask(_model: nn.Module, _inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        nonlocal mask
        mask = named.get("attention_mask")

    def hook(name: str) -> Any:
        def add(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach()
            known = mask.bool() if mask is not None and mask.shape == x.shape[:-1] else ...
            x = x[known].reshape(-1, x.shape[-1]).float()
            sums[name] = sums.get(name, torch.zeros_like(x[0])) + x.square().sum(0)
            counts[name] = counts.get(name, 0) + len(x)

        return add

    linears = {name: layer for name, layer in layers.items() if not isinstance(layer, nn.Embedding)}
    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in linears.items()]
    handles.append(model.register_forward_pre_hook(see_mask, with_kwargs=True))
    found: dict[str, Tensor] = {}
    try:
        yield found
        found.update({name: total / counts[name] for name, total in sums.items()})
    finally:
        for handle in handles:
            handle.remove()
