"""How the decoder blocks of a student run in a training step: recomputed, compiled, or as they are.

```
checkpointed    only the states between blocks are kept; a block runs again in the backward pass, by the same products
compiled        each block is compiled on its own, and a graph serves all that are alike; a change of the schedules,
                which are tensors, compiles nothing anew
```

Checkpointing lies around compilation, and both within the hooks of a block, so that what shards it later comes first.
In evaluation, where codes are kept from call to call, blocks run as they are, as they do within `as_they_are`. A GPU
gets Triton kernels from `torch.compile`; this package imports no Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from bitnet_train.model.quantized_linear import Products, training_products
from bitnet_train.model.start.blocks import decoder_blocks
from bitnet_train.model.step_attention import attention_again

_left_alone: ContextVar[bool] = ContextVar("left_alone", default=False)
_HOW = "_bitnet_train_how"


@dataclass(frozen=True)
class _How:
    """The forward of the class of a block, compiled or not, and whether it runs twice, by which products."""

    forward: Callable[..., Any]
    checkpointed: bool
    products: Products

    def contexts(self, block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Return what surrounds both runs; the second is outside of the step's own contexts."""
        return nullcontext(), _both(training_products(self.products), attention_again(block))


def prepare_blocks(student: nn.Module, *, compiled: bool, checkpointed: bool, products: Products = "float") -> None:
    """Let the blocks of a model run so from here on, in training.

    Raises ConversionError for a model without a list of blocks.
    """
    if not (compiled or checkpointed):
        return
    whole: Any = student.get_base_model() if isinstance(student, PeftModel) else student
    blocks: Any = decoder_blocks(whole)[1]
    forwards = {kind: torch.compile(kind.forward) if compiled else kind.forward for kind in map(type, blocks)}
    for block in blocks:
        setattr(block, _HOW, _How(forwards[type(block)], checkpointed, products))
        block.forward = MethodType(_forward, block)  # bound, so that a copy of a block runs the copy


@contextmanager
def as_they_are() -> Iterator[None]:
    """Let all blocks run as they are within, neither compiled nor recomputed."""
    token = _left_alone.set(True)
    try:
        yield
    finally:
        _left_alone.reset(token)


def _forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    how: _How = getattr(block, _HOW)
    if _left_alone.get() or not block.training:
        return type(block).forward(block, *args, **kwargs)
    if how.checkpointed and torch.is_grad_enabled():
        contexts = partial(how.contexts, block)
        return checkpoint(how.forward, block, *args, use_reentrant=False, context_fn=contexts, **kwargs)
    return how.forward(block, *args, **kwargs)


@contextmanager
def _both(first: AbstractContextManager[Any], second: AbstractContextManager[Any]) -> Iterator[None]:
    with first, second:
        yield
