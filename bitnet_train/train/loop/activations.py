"""What a forward pass keeps for the backward one, in bytes, counted over shapes: no value is computed, nothing is held.

The model is called with fake tensors, up to its third block, and every tensor that autograd keeps is counted once,
weights aside; further blocks keep as much. So it holds for any architecture, estimator and adapter, before weights are
opened. Attention counts as the fused kernels keep it: inputs, output and one number a head and token.

A heap of a CPU takes more for them, as what is freed between them leaves holes (`heap`): that is counted too, in the
same call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from bitnet_train.model.config_fields import hidden_size
from bitnet_train.model.start.blocks import decoder_blocks
from bitnet_train.train.loop.blocks_of_step import as_they_are
from bitnet_train.train.loop.heap import OnHeap

_SEEN = 3  # blocks that are called: holes that the first leaves are of use to the second


class Kept(NamedTuple):
    """Bytes kept outside of the blocks, by one block, and of the states between two; and how many blocks there are.

    `first_on_heap`, `block_on_heap`: by how much a heap grows during the first block, and each further one.
    """

    outside: int
    block: int
    between: int
    num_blocks: int
    first_on_heap: int
    block_on_heap: int

    def total(self, *, checkpointed: bool, on_heap: bool = False) -> int:
        """Return the bytes at the end of the forward pass; `checkpointed`: where a block is computed again, at most.

        `on_heap`: those that a heap takes for them.
        """
        first, block = (self.first_on_heap, self.block_on_heap) if on_heap else (self.block, self.block)
        further = self.num_blocks * self.between if checkpointed else (self.num_blocks - 1) * block
        return self.outside + first + further


class _Enough(Exception):
    """Enough blocks have been called."""


def kept_bytes(model: nn.Module, rows: int, tokens: int, *, bf16: bool) -> Kept | None:
    """Return what `rows` rows of `tokens` tokens keep; None where the model cannot be called without values.

    `model` is left as it is.
    """
    whole: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    was_training = whole.training
    try:
        whole.train()
        with as_they_are():
            (seen, tops), num_blocks = _seen(whole, rows, tokens, bf16), len(decoder_blocks(whole)[1])
    except Exception:  # of any kind: a model that asks for a value has no shapes to count
        return None
    finally:
        whole.train(was_training)
    states = rows * tokens * hidden_size(whole) * 4
    block, first_on_heap = (seen[-1] - seen[0]) // (len(seen) - 1), tops[1] - tops[0]
    block_on_heap = (tops[-1] - tops[1]) // max(1, len(tops) - 2)
    outside = seen[0] + 2 * states  # the last norm keeps its input, and its output
    return Kept(outside, block, states, num_blocks, first_on_heap, block_on_heap)


def _seen(whole: Any, rows: int, tokens: int, bf16: bool) -> tuple[list[int], list[int]]:
    """Return the bytes that autograd holds before the first block and after each that is called, and the heap's."""
    kept: dict[int, Tensor] = {}  # the tensors too, or a storage that is gone lends its number to the next
    counts: list[int] = []
    tops: list[int] = []

    def count(*_: Any) -> None:
        tops.append(heap.top)
        counts.append(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))
        if len(counts) == 1 + min(_SEEN, len(blocks)):
            raise _Enough

    blocks, heap = decoder_blocks(whole)[1], OnHeap()
    hooks = [blocks[0].register_forward_pre_hook(count)]
    hooks += [block.register_forward_hook(count) for block in blocks[:_SEEN]]
    try:
        with FakeTensorMode(), torch.enable_grad(), _FusedAttention(), heap:
            own = {name: _shape_of(tensor) for name, tensor in _tensors(whole)}
            weights = {_key(tensor) for tensor in own.values()}

            def keep(tensor: Tensor) -> Tensor:
                if _key(tensor) not in weights:
                    kept[_key(tensor)] = tensor
                return tensor

            inputs = {"input_ids": torch.zeros(rows, tokens, dtype=torch.int64), "use_cache": False}
            with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                functional_call(whole, own, (), inputs)
    except _Enough:
        return counts, tops
    finally:
        for hook in hooks:
            hook.remove()
    raise AssertionError("a model calls its blocks")


def _tensors(body: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from body.named_parameters()
    yield from body.named_buffers()


def _shape_of(tensor: Tensor) -> Tensor:
    made = torch.empty(tensor.shape, dtype=tensor.dtype)
    return made.requires_grad_(tensor.requires_grad)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _FusedAttention(TorchFunctionMode):
    """Lets attention keep what fused kernels keep."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is scaled_dot_product_attention:
            is_cast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
            return _Attention.apply(*(tensor.to(dtype) if is_cast else tensor for tensor in args[:3]))
        return function(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    """Shapes alone: query, key, value [B, heads, L, d] to an output of the shape of the query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        made = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, made, torch.empty(query.shape[:-1], device=query.device))
        return made

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise NotImplementedError("shapes have no gradient")
