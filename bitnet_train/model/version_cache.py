"""Remember one value computed from tensors until any of them changes.

A tensor counts as unchanged while it has the same storage address, shape and autograd version: optimiser steps,
`copy_` and `load_state_dict` all raise the version; `.to(device)` moves the storage. The cache holds on to the storages
it saw, so an address cannot be given to new data behind its back. An edit through `.data` raises no version: use
`torch.no_grad()`. Tensors made under `torch.inference_mode` carry no version and are never cached, nor is
anything while operations are only recorded (`quant.traced`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from bitnet_train.quant.traced import is_traced

Value = TypeVar("Value")


class VersionCache:
    """One slot. Copies and pickles of it start empty."""

    def __init__(self) -> None:
        self._seen: list[Tensor] = []
        self._key: list[tuple[Any, ...]] = []
        self._value: Any = None

    def get(self, tensors: Sequence[Tensor], compute: Callable[[], Value]) -> Value:
        """The kept value when `tensors` are the ones seen last and unchanged, else `compute()`, then kept."""
        if any(is_traced(tensor) or tensor.is_inference() for tensor in tensors):
            return compute()
        key = [(tensor.data_ptr(), tuple(tensor.shape), tensor.dtype, tensor._version) for tensor in tensors]
        if not self._seen or key != self._key:
            self._value = compute()
            self._seen, self._key = [tensor.detach() for tensor in tensors], key
        return self._value

    def clear(self) -> None:
        """Forget the value and let go of the tensors."""
        self._seen, self._key, self._value = [], [], None

    def __getstate__(self) -> dict[str, Any]:
        return VersionCache().__dict__.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> VersionCache:
        return VersionCache()
