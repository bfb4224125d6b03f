"""Find the first number in which two computations differ, and say where: bits are compared, with no margin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bitnet_train.packed.narrow import same_bits


def difference(actual: Tensor, expected: Tensor) -> str | None:
    """Return how two float tensors differ, with the first place, or None when all bits agree and all are finite."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return f"{actual.dtype} {list(actual.shape)} instead of {expected.dtype} {list(expected.shape)}"
    if not torch.isfinite(actual).all():
        return "a value is not finite"
    if same_bits(actual, expected):
        return None
    place = first_place(actual, expected)
    return f"{float(actual[place]):.9g} instead of {float(expected[place]):.9g} at {list(place)}"


def first_place(actual: Tensor, expected: Tensor) -> tuple[int, ...]:
    """Return the index of the first element that differs in value or, where no value does, in sign of zero."""
    differs = (actual != expected) | (torch.signbit(actual) != torch.signbit(expected))
    return tuple(int(index) for index in torch.nonzero(differs)[0])


@contextmanager
def output_hooks(modules: dict[str, nn.Module], see: Any) -> Iterator[None]:
    """While the block runs, call `see(name, input, output)` after each forward of these modules."""

    def hook(name: str) -> Any:
        return lambda _module, inputs, output: see(name, inputs[0] if inputs else None, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def first_differing_module(actual: nn.Module, expected: nn.Module, token_ids: Tensor) -> str | None:
    """Run both models on token ids [B, L] and name the first innermost module whose output differs, if any."""
    kept: dict[str, list[Tensor]] = {}
    found: list[str] = []

    def keep(name: str, _input: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            kept.setdefault(name, []).append(output)

    def compare(name: str, _input: Any, output: Any) -> None:
        if isinstance(output, Tensor) and kept.get(name) and not found:
            how = difference(kept[name].pop(0), output)
            found.extend([f"{name}: {how}"] if how else [])

    with output_hooks(_innermost(actual), keep):
        actual(token_ids, use_cache=False)
    with output_hooks(_innermost(expected), compare):
        expected(token_ids, use_cache=False)
    return found[0] if found else None


def _innermost(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if not any(True for _ in module.children())}
