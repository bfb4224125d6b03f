"""Fold a LoRA adapter that lives inside the quantiser into the latent weights, and prove that nothing changed.

    W <- W + s B A     with the same float32 expression that the forward uses

so the codes and scales after the merge are those before it, compared with `==` layer by layer. An outside adapter is
refused: its function has no form without it.
"""

from __future__ import annotations

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.errors import ConversionError, ParityError
from bitnet_train.model.bit_linear import clean_name
from bitnet_train.model.lora_layers import OUTSIDE_MERGE_REFUSAL, LoraInside, LoraOutside
from bitnet_train.model.training_only import require_packable


def merge(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The plain HF model with BitLinear layers that holds the adapted weights; in place. No adapter: the model itself.

    Raises ConversionError for an outside adapter, layers that only train, or a non-finite adapted weight (the model is
    unchanged), ParityError naming the layer whose codes or scales differ after the merge.

    Examples
    --------
    >>> import bitnet_train as bt
    >>> model = bt.load_pretrained("tiny").model
    >>> _ = bt.convert(model, "binary_row")
    >>> adapted = bt.attach(model, bt.AdapterConfig(rank=4))  # train it, and then
    >>> bt.merge(adapted) is model
    True
    """
    if any(isinstance(module, LoraOutside) for module in model.modules()):
        raise ConversionError(OUTSIDE_MERGE_REFUSAL)
    require_packable(model)
    if not isinstance(model, PeftModel):
        return model
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    adapters = {clean_name(name): module for name, module in base.named_modules() if isinstance(module, LoraInside)}
    before = {name: _checked_codes(name, adapter) for name, adapter in adapters.items()}
    for name, adapter in adapters.items():
        adapter.merge()
        base.set_submodule(name, adapter.bit_linear, strict=True)
        _require_equal(name, before.pop(name), adapter.bit_linear.quantized())
    _forget_peft(base)
    return base


def _checked_codes(name: str, adapter: LoraInside) -> tuple[Tensor, Tensor]:
    if not bool(torch.isfinite(adapter.latent()).all()):
        raise ConversionError(
            f"the adapted weight of {name} has NaN or infinite values, so it has no codes. Merge an earlier checkpoint."
        )
    return adapter.quantized()


def _require_equal(name: str, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> None:
    for what, old, new in zip(("codes", "scales"), before, after, strict=True):
        differing = int((old != new).sum())
        if differing:
            raise ParityError(
                f"merging changed {differing} of {old.numel()} {what} of {name}: the merged layer is not the trained "
                "one. Latent weights and adapters must be float32 and unchanged since the last forward."
            )


def _forget_peft(base: nn.Module) -> None:
    """Remove the marks that get_peft_model leaves on the model it wraps."""
    for mark in ("peft_config", "_hf_peft_config_loaded"):
        if mark in base.__dict__:
            delattr(base, mark)
