"""Layers that exist to be measured: they train, and no way out of training is open to them.

A method that no byte format of ours can hold is worth a comparison before it is worth a format.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from bitnet_train.errors import ConversionError


class TrainingOnly:
    """Mixin of a BitLinear with parameters that cannot be packed."""

    refusal: ClassVar[str]
    """What a person who merges or packs it is told, the way out included."""
    own_parameters: ClassVar[tuple[str, ...]]
    """Names of the parameters that it has beside those of BitLinear; they train with every adapter inside."""


def train_own_parameters(model: nn.Module) -> None:
    """Let the parameters that only these layers have train, whatever else does."""
    for layer in model.modules():
        if isinstance(layer, TrainingOnly):
            for name in layer.own_parameters:
                getattr(layer, name).requires_grad_(True)


def require_packable(model: nn.Module) -> None:
    """Raise ConversionError for a model with layers that cannot be merged or packed."""
    for layer in model.modules():
        if isinstance(layer, TrainingOnly):
            raise ConversionError(layer.refusal)
