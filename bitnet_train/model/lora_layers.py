"""Two PEFT layers over a BitLinear: LoRA inside the quantiser, and PEFT's usual LoRA outside it.

    inside    y = bit_linear(x; latent = W + s B A)       the adapter moves codes, and merges without a trace
    outside   y = bit_linear(x; W) + s B A x              the adapter stays a float side path, and cannot be merged

with A [r, K], B [N, r], s = alpha / sqrt(r) (rsLoRA, arXiv 2312.03732) or alpha / r (arXiv 2106.09685). The inside
delta is computed in float32 outside autocast by one function, in training, evaluation and merge alike: that makes the
merged layer equal to the adapted one bit for bit. PEFT's own merge of an outside adapter into a quantised weight
changes the function silently, so here it refuses.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_linear import BitLinear
from bitnet_train.model.version_cache import VersionCache


class _BitLoraLayer(nn.Module, LoraLayer):
    """What both kinds share: construction the way PEFT's dispatcher calls it."""

    def __init__(
        self,
        base_layer: BitLinear,
        adapter_name: str,
        config: LoraConfig,
        r: int = 0,
        lora_alpha: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, lora_alpha=lora_alpha, config=config, **kwargs)

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        layer = self.bit_linear
        return layer.in_features, layer.out_features

    @property
    def bit_linear(self) -> BitLinear:
        """The adapted layer."""
        layer = self.get_base_layer()
        assert isinstance(layer, BitLinear)
        return layer

    def factors(self) -> list[tuple[Tensor, Tensor, float]]:
        """(A [r, K], B [N, r], s) of every adapter that is switched on; empty when adapters are disabled or merged."""
        if self.disable_adapters or self.merged:
            return []
        names = [name for name in self.active_adapters if name in self.lora_A]
        return [(_weight(self.lora_A[name]), _weight(self.lora_B[name]), self.scaling[name]) for name in names]

    def unmerge(self) -> None:
        """Refuse: the unmerged weight is not kept."""
        raise ConversionError("a merged BitLinear adapter cannot be taken out again. Keep the adapter file instead.")


class LoraInside(_BitLoraLayer):
    """Q(W + s B A) x."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cache = VersionCache()

    def latent(self) -> Tensor:
        """W + s B A, float32 [N, K], differentiable in A and B."""
        latent = self.bit_linear.latent()
        with torch.autocast(latent.device.type, enabled=False):
            for a_RK, b_NR, scaling in self.factors():
                latent = latent + scaling * (b_NR.float() @ a_RK.float())
        return latent

    @torch.no_grad()
    def quantized(self) -> tuple[Tensor, Tensor]:
        """Codes int8 [N, K] and scale of the adapted weight, kept until a parameter changes."""
        layer = self.bit_linear
        watched = [layer.weight, *(tensor for a, b, _ in self.factors() for tensor in (a, b))]
        watched += [] if layer.scale is None else [layer.scale]
        return self._cache.get(watched, lambda: layer.quantized(self.latent()))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x [.., K] to [.., N], as BitLinear with the adapted latent weight."""
        if self.training:
            return self.bit_linear(x, latent=self.latent())
        return self.bit_linear.linear_from_codes(x, *self.quantized())

    def train(self, mode: bool = True) -> LoraInside:
        """Switch forwards; training forgets the kept codes."""
        if mode:
            self._cache.clear()
        return super().train(mode)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write the adapted weight into the BitLinear, all active adapters at once; the arguments are PEFT's."""
        if adapter_names is not None and set(adapter_names) != set(self.active_adapters):
            raise ConversionError(f"cannot merge only {adapter_names}: the active {self.active_adapters} act together.")
        self.bit_linear.weight.copy_(self.latent())
        self.merged_adapters.extend(self.active_adapters)


class LoraOutside(_BitLoraLayer):
    """Q(W) x + s B A dropout(x)."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x [.., K] to [.., N] in the dtype of the BitLinear's output."""
        y = self.bit_linear(x)
        if self.disable_adapters:
            return y
        for name in self.active_adapters:
            if name in self.lora_A:
                a, b = self.lora_A[name], self.lora_B[name]
                y = y + self.scaling[name] * b(a(self.lora_dropout[name](x).to(_weight(a).dtype))).to(y.dtype)
        return y

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: Q(W) x + s B A x is no Q(W') x."""
        raise ConversionError(OUTSIDE_MERGE_REFUSAL)


def _weight(module: nn.Module) -> Tensor:
    assert isinstance(module, nn.Linear)
    return module.weight


OUTSIDE_MERGE_REFUSAL = (
    "an adapter of kind `lora_outside` cannot be merged into 1-bit weights: Q(W) x + s B A x is not of the form "
    "Q(W') x, and merging would change the function silently. Train with `adapter.kind=lora_inside`, or keep the "
    "adapter as a separate file (`save_pretrained` of the PEFT model) beside the packed base."
)
