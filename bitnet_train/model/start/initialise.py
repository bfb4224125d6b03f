"""What a converted model starts training from, beyond copies of its weights: better scales, better latents.

    scales    absmean = mean|W|;  als = least squares weighted by the second moments of the inputs (`fit_scale`)
    latents   copy = W;  error_feedback = codes that make up for each other's errors, with scales of their own

Both look at calibration text, one decoder block after the other: the inputs of a block come from the blocks before it
as they are by then, 1-bit. Inside a block the layers go in the order they are called, so that what the output
projection of attention is fitted to is what its 1-bit queries, keys and values give. Layers outside the blocks (head,
embedding) keep the start that conversion gave them.

A fixed scale is mean|W| of the latents by definition and cannot be fitted: both need learnable scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_linear import BitLinear, bit_layers
from bitnet_train.model.start.blocks import (
    BlockCall,
    block_calls,
    decoder_blocks,
    embedded,
    run_block,
    shared_inputs,
    training_forward,
)
from bitnet_train.model.start.error_feedback import error_feedback
from bitnet_train.model.start.fit_scale import fit_scale
from bitnet_train.model.start.input_moments import row_batches, second_moments
from bitnet_train.model.start.settings import InitConfig
from bitnet_train.progress import track
from bitnet_train.quant.scheme import WeightScheme


@torch.no_grad()
def initialise(model: PreTrainedModel, config: InitConfig, token_ids: Tensor, is_real: Tensor) -> dict[str, Any]:
    """Fit the 1-bit linears of a freshly converted model, in place; return figures for its facts.

    token_ids int64 [R, L], right-padded; is_real bool [R, L]. The figures are the errors E|xW - xW'|^2 / E|xW|^2 by
    layer. Raises ConversionError when a layer's scale is fixed, or the model holds no 1-bit linear in its blocks.
    """
    if not config.fits_layers:
        return {}
    prefix, blocks = decoder_blocks(model)
    require_learnable({name: layer.weight_scheme for name, layer in bit_layers(model).items()}, config)
    calls = block_calls(model, token_ids.shape[1])
    hidden = embedded(model, token_ids)
    errors: dict[str, float] = {}
    numbered = list(enumerate(zip(blocks, calls, strict=True)))
    for index, (block, call) in track(numbered, "Fitting blocks", len(numbered)):
        with training_forward(block):
            found = fit_block(block, call, config, hidden, is_real)
            for rows in row_batches(len(hidden)):
                hidden[rows] = run_block(block, hidden[rows], call)
        errors |= {f"{prefix}.{index}.{name}": error for name, error in found.items()}
    if not errors:
        raise ConversionError(
            f"`init` found no 1-bit linear in the blocks of {type(model).__name__}. Leave `init.scales` at absmean "
            "and `init.latents` at copy."
        )
    return {"errors": errors, "calibration_tokens": int(is_real.sum())}


@torch.no_grad()
def fit_block(
    block: nn.Module, call: BlockCall, config: InitConfig, hidden: Tensor, is_real: Tensor
) -> dict[str, float]:
    """Fit the 1-bit linears of one block, whose inputs are `hidden` [R, L, H]; return the error of each by name."""
    layers = {name: module for name, module in block.named_modules() if isinstance(module, BitLinear)}
    errors: dict[str, float] = {}
    for names in shared_inputs(block, list(layers), hidden[:1], call):
        moments = second_moments(block, layers[names[0]], call, hidden, is_real)
        for name in names:
            errors[name] = _fit_layer(layers[name], moments, config)
    return errors


def _fit_layer(layer: BitLinear, moments: Tensor, config: InitConfig) -> float:
    assert layer.scale is not None
    weight = layer.weight.detach().clone()
    if config.latents == "error_feedback":
        latent, scale = error_feedback(weight, moments, layer.weight_scheme, config.damping)
        layer.weight.copy_(latent)
    else:
        scale = fit_scale(weight, layer.weight_scheme, moments.diagonal())
    layer.scale.copy_(scale)
    lost = layer.effective_weight() - weight
    return float(((lost @ moments) * lost).sum() / ((weight @ moments) * weight).sum().clamp(min=1e-30))


def require_learnable(schemes: Mapping[str, WeightScheme], config: InitConfig) -> None:
    """Raise ConversionError when scales are to be fitted, and that of a layer, given by its scheme, is fixed."""
    fixed = [name for name, scheme in schemes.items() if not scheme.learnable_scale]
    if fixed and config.fits_layers:
        key = "init.latents" if config.latents != "copy" else "init.scales"
        raise ConversionError(
            f"`{key}` fits scales, but that of {fixed[0]} is fixed: it follows mean|W|. Set "
            "`weight.learnable_scale=true`."
        )
