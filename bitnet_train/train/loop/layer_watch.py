"""Which 1-bit layer a diverging run went wrong in: codes and scales, against those of the last look.

A sample of `SAMPLE` codes per layer is kept, evenly spread over it, so that watching a model of any size costs a few
megabytes and one look per checkpoint. For a layer with scales s and codes c, s0 at the start of this process and c' at
the last look:

```
scale growth = mean|s| / mean|s0|          flips = share of the sample with c != c'
```
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.bit_linear import clean_name
from bitnet_train.model.lora_layers import LoraInside
from bitnet_train.train.loop.spread import is_spread, whole

SAMPLE = 1 << 16
Codes = dict[str, Tensor]


def quantised_layers(model: nn.Module) -> dict[str, BitLayer | LoraInside]:
    """Return, by clean name, what answers `latent()` and `quantized()` for each 1-bit layer, adapter included.

    Nothing of a model that is spread over processes: no one of them has a whole layer.
    """
    found: dict[str, BitLayer | LoraInside] = {}
    if is_spread(model):
        return found
    for name, module in model.named_modules():
        if isinstance(module, LoraInside | BitLayer):
            found.setdefault(clean_name(name), module)  # a LoraInside comes before the BitLinear that it wraps
    return found


class LayerWatch:
    """Remembers scales from when it was made, and codes from the last `look`."""

    def __init__(self, student: nn.Module) -> None:
        self._codes, self._scales = _look(student)

    def look(self, student: nn.Module) -> None:
        """Remember the codes as they are now."""
        self._codes, _ = _look(student)

    def describe(self, student: nn.Module) -> str:
        """Say which layer's scales grew most and which layer's codes flipped most; empty without 1-bit layers."""
        codes, scales = _look(student)
        if not codes:
            return ""
        growth = {name: scale / max(self._scales[name], 1e-30) for name, scale in scales.items()}
        flips = {name: float((code != self._codes[name]).float().mean()) for name, code in codes.items()}
        grown, flipped = (max(figures, key=lambda name: figures[name]) for figures in (growth, flips))
        return (
            f"Scales grew most in {grown}, to {growth[grown]:.2g} times those at the start; codes flipped most in "
            f"{flipped}, {flips[flipped]:.1%} of them since the last checkpoint."
        )


def first_non_finite(student: nn.Module) -> str | None:
    """Name the first weight that is not finite; else the gradient where it began: the last one in model order.

    A gradient that is no number spreads from the output to the input, so of all that are none the last is the cause.
    """
    parameters = [(name, p) for name, p in student.named_parameters() if p.requires_grad or p.is_floating_point()]
    for name, parameter in parameters:
        if not is_finite(parameter.detach()):
            return f"the weight {clean_name(name)} is not finite"
    broken = [name for name, p in parameters if p.grad is not None and not is_finite(p.grad)]
    return f"its gradient is first not finite in {clean_name(broken[-1])}" if broken else None


def has_bad_weight(student: nn.Module) -> bool:
    """Whether any weight is not finite: then no further step can be better."""
    return any(not is_finite(p.detach()) for p in student.parameters() if p.is_floating_point())


def is_finite(tensor: Tensor) -> bool:
    """Whether all of a tensor is, on whatever process."""
    return bool(whole(tensor.isfinite().all()))


def sample_codes(student: nn.Module) -> Codes:
    """Return, of each 1-bit layer by clean name, at most `SAMPLE` codes spread over it, int8 on the CPU."""
    return _look(student)[0]


@torch.no_grad()
def _look(student: nn.Module) -> tuple[Codes, dict[str, float]]:
    codes, scales = {}, {}
    for name, layer in quantised_layers(student).items():
        code, scale = layer.quantized()
        flat = code.flatten()
        codes[name] = flat[:: -(-flat.numel() // SAMPLE)].to("cpu", torch.int8, copy=True)
        scales[name] = float(scale.abs().double().mean())
    return codes, scales
