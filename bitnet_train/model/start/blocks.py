"""Run a decoder one block at a time: find its blocks, learn how each is called, feed them by hand.

    hidden_0 = embedded(model, ids)         hidden_{b+1} = run_block(blocks[b], hidden_b, calls[b])

How a block is called (rotary tables, masks, cache arguments) differs between architectures, so it is not written down
here but overheard: the model runs once on one row while its blocks only note their arguments. Everything noted has
batch size 1 and broadcasts. Rows are padded on the right, and attention is causal: no real token sees padding, so no
mask is needed, only care about which positions are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.select import language_and_towers


@dataclass(frozen=True)
class BlockCall:
    """What a block is given besides its hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Reached(Exception):
    """Ends a forward pass that has shown what was wanted."""


def decoder_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the name of the list of decoder blocks (`model.layers`) and the list, of the language model alone.

    Raises ConversionError for a model without one.
    """
    language, towers = language_and_towers(model)
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and module and name.startswith(language) and not name.startswith(towers)
    }
    if not lists:
        raise ConversionError(
            f"{type(model).__name__} has no list of decoder blocks, so nothing can be done block by block. Set "
            "`init.latents=copy`, `init.scales=absmean`, `init.equalise=false` and `blockwise.enabled=false`."
        )
    name = max(lists, key=lambda name: sum(parameter.numel() for parameter in lists[name].parameters()))
    return name, lists[name]


@torch.no_grad()
def block_calls(model: PreTrainedModel, num_tokens: int) -> list[BlockCall]:
    """Return how each block is called for rows of `num_tokens` tokens; only the first block really runs."""
    _, blocks = decoder_blocks(model)
    calls: list[BlockCall] = []
    is_tuple: list[bool] = []

    def overheard(real: Any) -> Any:
        def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            calls.append(BlockCall(args, kwargs))
            if not is_tuple:
                is_tuple.append(isinstance(real(hidden, *args, **kwargs), tuple))
            return (hidden,) if is_tuple[0] else hidden

        return forward

    ids = torch.zeros(1, num_tokens, dtype=torch.int64, device=model.device)
    with _forwards(blocks, overheard):
        model.base_model(input_ids=ids, use_cache=False)
    assert len(calls) == len(blocks)
    return calls


@torch.no_grad()
def embedded(model: PreTrainedModel, token_ids: Tensor) -> Tensor:
    """Return the hidden states [R, L, H] that the first block is given for ids int64 [R, L]."""
    _, blocks = decoder_blocks(model)
    seen: list[Tensor] = []

    def first(real: Any) -> Any:
        def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            seen.append(hidden)
            raise _Reached

        return forward

    with _forwards(blocks[:1], first), suppress(_Reached):
        model.base_model(input_ids=token_ids, use_cache=False)
    return seen[0]


def head_inputs(model: PreTrainedModel, token_ids: Tensor) -> Tensor:
    """Return what the head reads, [R, L, H], for ids int64 [R, L]. The model has a head."""
    head, seen = model.get_output_embeddings(), []
    assert head is not None
    with layer_inputs(head, seen.append), suppress(_Reached):
        model(input_ids=token_ids, use_cache=False)
    return seen[0]


def run_block(block: nn.Module, hidden: Tensor, call: BlockCall) -> Tensor:
    """Return the hidden states [R, L, H] after a block."""
    result = block(hidden, *call.args, **call.kwargs)
    return result[0] if isinstance(result, tuple) else result


@contextmanager
def training_forward(module: nn.Module) -> Iterator[None]:
    """Let 1-bit layers compute as in training (fast, float) and all else as in evaluation (no dropout)."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    for part in module.modules():
        if isinstance(part, BitLayer):
            part.train()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


@contextmanager
def layer_inputs(layer: nn.Module, use: Any) -> Iterator[None]:
    """Call `use(x)` with the input of `layer` in every forward pass, which ends there."""

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        use(args[0])
        raise _Reached

    handle = layer.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def run_until_reached(block: nn.Module, hidden: Tensor, call: BlockCall) -> None:
    """Run a block up to the layer that `layer_inputs` watches."""
    with suppress(_Reached):
        run_block(block, hidden, call)


@torch.no_grad()
def shared_inputs(block: nn.Module, names: list[str], hidden: Tensor, call: BlockCall) -> list[list[str]]:
    """Group the named layers of a block by the very tensor they read, in the order they are called.

    A Llama block gives [q, k, v], [o], [gate, up], [down]. Layers that are not called (idle experts) are left out.
    """
    read: list[tuple[str, Tensor]] = []
    modules = dict(block.named_modules())

    def note(name: str) -> Any:
        return lambda module, args: read.append((name, args[0]))

    handles = [modules[name].register_forward_pre_hook(note(name)) for name in names]
    try:
        run_block(block, hidden, call)
    finally:
        for handle in handles:
            handle.remove()
    groups: list[tuple[Tensor, list[str]]] = []
    for name, x in read:
        same = [members for seen, members in groups if seen.data_ptr() == x.data_ptr() and seen.shape == x.shape]
        if same:
            same[0].append(name)
        else:
            groups.append((x, [name]))
    return [members for _, members in groups]


@contextmanager
def _forwards(blocks: Any, replacement: Any) -> Iterator[None]:
    """Put `replacement(block.forward)` in the place of every block's forward."""
    for block in blocks:
        block.forward = replacement(block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]
