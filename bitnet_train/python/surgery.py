"""Plan, convert and attach by the names that recipes use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from bitnet_train.model import bit_lora
from bitnet_train.model import convert as conversion
from bitnet_train.model.overrides import Override, read_overrides
from bitnet_train.model.plan import Plan
from bitnet_train.model.settings import AdapterConfig, Selection
from bitnet_train.python.choices import settings_of, weight_choice
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import SURROGATES, Surrogate
from bitnet_train.settings import part_of

Overrides = Sequence[Override | Mapping[str, Any]]


def plan_conversion(
    model: PreTrainedModel,
    weight: str | WeightScheme = "binary_row",
    *,
    selection: Selection | None = None,
    overrides: Overrides = (),
) -> Plan:
    """Say what `convert` would do to every layer, and change nothing.

    Takes what `convert` takes, and raises what it raises.

    Examples
    --------
    >>> import bitnet_train as bt
    >>> plan = bt.plan(bt.load_pretrained("tiny").model, "ternary_row")
    >>> print(plan)
    layer                            N x K       becomes          layers
    model.embed_tokens               4096 x 256  float            1
    model.layers.*.self_attn.q_proj  256 x 256   ternary per row  4
    ...
    28 of 30 layers become 1-bit, 3,407,872 weights.
    """
    choice = weight_choice(weight)
    scheme = choice.weight.scheme
    differing = (*read_overrides(choice.weight.overrides, scheme), *_read(overrides, scheme))
    return conversion.plan_conversion(model, selection or choice.selection, scheme, differing)


def convert(
    model: PreTrainedModel,
    weight: str | WeightScheme = "binary_row",
    *,
    activation: str | ActivationScheme = "int8",
    selection: Selection | None = None,
    surrogate: Surrogate | None = None,
    overrides: Overrides = (),
    plan: Plan | None = None,
) -> Plan:
    """Replace the linears of attention and mlp by 1-bit ones, in place, all or nothing; return the plan carried out.

    Every `BitLinear` keeps the float32 weight it replaces as its latent weight, which trains; its forward computes with
    codes and scales of it. The model stays a Hugging Face model: any training loop takes it.

    Parameters
    ----------
    model
        A causal LM with float weights, on any device.
    weight
        A choice of `configs/weight/` (`binary_row`, `ternary_group64`, ...), or a `WeightScheme`.
    activation
        A choice of `configs/activation/` (`int8`, `int4`, `sign`, `none`), or an `ActivationScheme`.
    selection
        Which layers; None: those of the choice, which are attention and mlp for all but `binary_everywhere`.
    surrogate
        How gradients pass through the quantiser; None: that of the choice, which is `Identity()`.
    overrides
        Layers that differ: `[{"pattern": "down_proj", "name": "ternary"}, {"role": "head", "keep": True}]`. Of entries
        that fit a layer the last decides.
    plan
        What `plan` returned: it decides in place of `weight`, `selection` and `overrides`.

    Raises
    ------
    ConfigError
        For a name that is no choice; the message has the nearest that is.
    ConversionError
        When nothing is selected, a pattern matches nothing, a group size does not divide the inputs of a layer, or a
        weight is not finite. Nothing has been changed then.

    Examples
    --------
    >>> import bitnet_train as bt
    >>> model = bt.load_pretrained("tiny").model
    >>> bt.convert(model, "binary_row")
    <Plan: 28 of 30 layers become 1-bit, 3,407,872 weights. print() shows the table.>
    >>> model.model.layers[0].mlp.up_proj
    BitLinear(...)
    """
    scheme = weight_choice(weight).weight
    if plan is None:
        plan = plan_conversion(model, weight, selection=selection, overrides=overrides)
    return conversion.convert(
        model,
        activation=settings_of("activation", activation, ActivationScheme),
        surrogate=surrogate or part_of(SURROGATES[scheme.estimator], scheme),
        plan=plan,
    )


def attach(model: PreTrainedModel, adapter: str | AdapterConfig = "lora_inside") -> PreTrainedModel | PeftModel:
    """Choose what of a converted model trains: a PeftModel for the LoRA kinds, else the model itself, in place.

    `lora_inside` computes Q(W + sBA), so that `merge` changes nothing; `lora_outside` computes Q(W) + sBA, which stays
    a file of its own; `scales_only` trains scales, norms and biases; `none` every latent weight.

    Parameters
    ----------
    model
        What `convert` changed.
    adapter
        A choice of `configs/adapter/`, or an `AdapterConfig`: `AdapterConfig(rank=8)`.

    Raises
    ------
    ConfigError
        For a name that is no choice.
    ConversionError
        When the model has no 1-bit layer, or an adapter already, or `scales_only` finds no learnable scale.

    Examples
    --------
    >>> import bitnet_train as bt
    >>> model = bt.load_pretrained("tiny").model
    >>> _ = bt.convert(model, "binary_row")
    >>> adapted = bt.attach(model, bt.AdapterConfig(rank=8))
    >>> trains = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    >>> model is bt.merge(adapted)
    True
    """
    return bit_lora.attach(model, settings_of("adapter", adapter, AdapterConfig))


def _read(overrides: Overrides, scheme: WeightScheme) -> tuple[Override, ...]:
    """Return overrides, those that are entries read over the scheme."""
    read: list[Override] = []
    for entry in overrides:
        read += [entry] if isinstance(entry, Override) else read_overrides([entry], scheme)
    return tuple(read)
