"""Decide what trains: LoRA inside or outside the quantiser, scales only, or every latent weight.

    lora_inside    y = Q(W + s B A) x; A, B train, with learnable scales, biases and norms as configured
    lora_outside   y = Q(W) x + s B A x; only A and B train, so that the packed base stays what it was
    scales_only    learnable scales train, with biases and norms as configured
    none           every latent weight trains, with learnable scales, biases and norms as configured

Adapters go to linears only. A 1-bit embedding trains its latents with `none`, and its learnable scale as a linear does.
Layers that were not converted, and the embeddings, stay frozen unless `train_embeddings` is set (not with
`lora_outside`); that trains the latents of a 1-bit embedding too. LoRA goes through PEFT's own LoraConfig and
get_peft_model; the one underscored hook is used here only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.bit_linear import BitLinear, bit_layers, clean_name
from bitnet_train.model.lora_layers import LoraInside, LoraOutside
from bitnet_train.model.settings import AdapterConfig
from bitnet_train.quant.weight import expand_scale

_LORA_LAYERS: dict[str, type[nn.Module]] = {"lora_inside": LoraInside, "lora_outside": LoraOutside}


def attach(model: PreTrainedModel, config: AdapterConfig) -> PreTrainedModel | PeftModel:
    """Make a converted model ready to train: a PeftModel for the LoRA kinds, else the same model; requires_grad is set.

    Raises ConversionError when the model has no 1-bit layer (for LoRA: no BitLinear), has an adapter already, or
    `scales_only` finds no learnable scale.
    """
    layers = bit_layers(model)
    if not layers:
        raise ConversionError(f"{type(model).__name__} has no BitLinear to adapt. Run `convert` first.")
    linears = [name for name, layer in layers.items() if isinstance(layer, BitLinear)]
    if config.kind in _LORA_LAYERS and not linears:
        raise ConversionError(
            f"`adapter.kind={config.kind}` adapts linears, and only the embedding of {type(model).__name__} is 1-bit. "
            "Set `adapter.kind=none`, or convert linears too."
        )
    if any(isinstance(module, (LoraInside, LoraOutside)) for module in model.modules()):
        raise ConversionError(f"{type(model).__name__} has an adapter already. Merge it before attaching another.")
    if config.kind == "scales_only" and all(layer.scale is None for layer in layers.values()):
        raise ConversionError(
            "`adapter.kind=scales_only` found no learnable scale to train. Set `weight.learnable_scale=true`."
        )
    if config.moves_latents:
        _shrink_latents({name: layers[name] for name in linears}, config)
    adapted = _with_lora(model, config, linears) if config.kind in _LORA_LAYERS else model
    _set_trainable(adapted, config)
    return adapted


@torch.no_grad()
def _shrink_latents(layers: dict[str, BitLayer], config: AdapterConfig) -> None:
    """Move latents towards 0 without a change of codes or scales (OneBit's sign(W) 0.01, arXiv 2402.11295)."""
    for name, layer in layers.items():
        if layer.scale is None or layer.weight_scheme.code_set != "binary":
            raise ConversionError(
                f"`adapter.latent_shrink` and `adapter.equal_latents` would change the codes or the scale of {name}, "
                f"which is {layer.weight_scheme.describe()}. They need binary weights of one plane whose scales are "
                "learnable: `weight.name=binary weight.planes=1 weight.learnable_scale=true`."
            )
    for layer in layers.values():
        latent = layer.weight
        if config.equal_latents:
            signs = torch.where(latent >= 0, 1.0, -1.0)
            latent.copy_(signs * expand_scale(layer.rounded_scale(), *latent.shape))
        latent.mul_(config.latent_shrink)


def quantized_weights(model: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(clean name, codes int8 [N, K], scale) of every 1-bit layer as its forward uses them, adapter included."""
    wrapped: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, LoraInside):
            wrapped.add(id(module.bit_linear))
            yield clean_name(name), *module.quantized()
        elif isinstance(module, BitLayer) and id(module) not in wrapped:
            yield clean_name(name), *module.quantized()


def trainable_report(model: nn.Module) -> tuple[int, int]:
    """Number of trainable and of all parameters; a tied tensor counts once."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def _with_lora(model: PreTrainedModel, config: AdapterConfig, targets: list[str]) -> PeftModel:
    strength: dict[str, Any] = {"r": config.rank, "lora_alpha": config.alpha, "use_rslora": config.rslora}
    lora = LoraConfig(
        **strength, lora_dropout=config.dropout, target_modules=targets, bias="none", task_type=TaskType.CAUSAL_LM
    )
    lora._register_custom_module({BitLinear: _LORA_LAYERS[config.kind]})
    adapted = get_peft_model(model, lora)
    assert isinstance(adapted, PeftModel)
    return adapted


def _set_trainable(model: nn.Module, config: AdapterConfig) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, (LoraInside, LoraOutside)):
            for factor in (*module.lora_A.parameters(), *module.lora_B.parameters()):
                factor.requires_grad_(True)
    if config.kind == "lora_outside":
        return
    for layer in bit_layers(model).values():
        _train_layer(layer, config)
    if config.train_norms:
        _train_all(module for module in model.modules() if is_norm(module))
    if config.train_embeddings:
        _train_all(module for module in _embeddings(model) if not isinstance(module, BitLinear))


def _train_layer(layer: BitLayer, config: AdapterConfig) -> None:
    layer.weight.requires_grad_(config.kind == "none")
    if layer.scale is not None:
        layer.scale.requires_grad_(True)
    if layer.bias is not None:
        layer.bias.requires_grad_(config.train_bias)


def _train_all(modules: Iterator[nn.Module]) -> None:
    for module in modules:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)


def _embeddings(model: nn.Module) -> Iterator[nn.Module]:
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, PreTrainedModel)
    yield from (module for module in (base.get_input_embeddings(), base.get_output_embeddings()) if module is not None)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer: LayerNorm, or any class named ...Norm (LlamaRMSNorm, ...)."""
    return isinstance(module, nn.LayerNorm) or "norm" in type(module).__name__.lower()
