"""Swap the layers of a causal LM for 1-bit ones: look at everything first, then change everything, or nothing.

`plan_conversion` reads the model and says for each layer what would happen and why; whatever could fail (a pattern
that matches nothing, a group size that does not divide K, NaN weights, a scale outside fp16) fails there. `convert`
then replaces modules in place: a linear by `BitLinear`, the token embedding, when its role is asked for, by
`BitEmbedding`. A head and an embedding that share one weight are untied when either becomes 1-bit: each then has a
tensor of its own, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers import PreTrainedModel

from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_embedding import BitEmbedding, embedding_weight
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.bit_linear import BitLinear, bit_layers, linear_parameters
from bitnet_train.model.overrides import Override, check_overrides, last_fitting
from bitnet_train.model.patterns import OTHER, star_numbers
from bitnet_train.model.plan import Plan, PlanRow
from bitnet_train.model.select import candidates, check_patterns, is_selected, layer_roles
from bitnet_train.model.settings import Selection
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Identity, Surrogate
from bitnet_train.quant.weight import absmean_scale


def plan_conversion(
    model: PreTrainedModel,
    selection: Selection,
    weight_scheme: WeightScheme,
    overrides: Sequence[Override] = (),
    *,
    shapes_alone: bool = False,
) -> Plan:
    """Say what `convert` would do, changing nothing; `overrides` give some layers a scheme of their own, or keep them.

    Raises ConversionError: the model holds 1-bit layers already; a pattern or an override matches nothing; nothing is
    selected; a selected weight has NaN or Inf, is not divisible into groups, has an unstorable scale, or is shared with
    another layer (embedding and head may share); the embedding does more than look rows up. `shapes_alone` asks nothing
    of values, for a model on the meta device.
    """
    name = type(model).__name__
    if bit_layers(model):
        raise ConversionError(f"{name} holds 1-bit layers already. Convert a freshly loaded model.")
    layers = candidates(model)
    roles = layer_roles(model, layers)
    selectable = {key: role for key, role in roles.items() if not _is_other_table(layers[key], role)}
    check_patterns(selection, selectable, name)
    rows = tuple(_plan_row(key, roles[key], module, selection, weight_scheme) for key, module in layers.items())
    check_overrides(overrides, selectable, {row.name for row in rows if row.action == "convert"}, name)
    rows = tuple(_overridden(row, overrides) for row in rows)
    stacked = _stacked_rows(model)
    plan = Plan((*rows, *stacked), (*_notes(model, rows), *_stacked_notes(model, stacked)))
    if not plan.converted:
        raise ConversionError(
            f"nothing to convert in {name}: no layer passes `model`={selection.to_dict()}. "
            f"Roles found: {', '.join(sorted(set(selectable.values()))) or 'no layer at all'}."
        )
    for key, scheme in plan.schemes.items():
        weight = _convertible_weight(key, layers[key])
        (_require_shape if shapes_alone else _require_values)(key, weight, scheme)
    _require_unshared(model, plan.converted)
    return plan


def plan_of_converted(model: PreTrainedModel) -> Plan:
    """The plan of a model whose layers are 1-bit already, as a file brought them."""
    layers: dict[str, Any] = {**bit_layers(model), **candidates(model)}
    roles = layer_roles(model, layers)
    rows = tuple(_given_row(name, roles[name], layer) for name, layer in layers.items())
    stacked = _stacked_rows(model)
    return Plan((*rows, *stacked), _stacked_notes(model, stacked))


def _given_row(name: str, role: str, layer: Any) -> PlanRow:
    is_linear = not isinstance(layer, BitLayer | nn.Embedding)
    num_rows, num_columns = (linear_parameters(layer)[0] if is_linear else layer.weight).shape
    if isinstance(layer, BitLayer):
        return PlanRow(name, role, (num_rows, num_columns), "convert", "1-bit already", layer.weight_scheme)
    return PlanRow(name, role, (num_rows, num_columns), "keep", "float in the file")


def convert(
    model: PreTrainedModel,
    *,
    selection: Selection | None = None,
    weight: WeightScheme | None = None,
    activation: ActivationScheme | None = None,
    surrogate: Surrogate | None = None,
    overrides: Sequence[Override] = (),
    plan: Plan | None = None,
) -> Plan:
    """Replace the selected layers by 1-bit ones, in place, and return the plan that was carried out.

    Defaults: attention and mlp, binary per row with fixed fp16 scales, int8 activations, identity estimator. A `plan`
    from `plan_conversion` saves a second look, and decides what `selection`, `weight` and `overrides` do without it.
    Raises ConversionError before anything is changed.
    """
    plan = plan or plan_conversion(model, selection or Selection(), weight or WeightScheme(), overrides)
    replace_layers(model, plan.schemes, activation or ActivationScheme(), surrogate or Identity())
    return plan


def replace_layers(
    model: PreTrainedModel,
    schemes: Mapping[str, WeightScheme],
    activation: ActivationScheme,
    surrogate: Surrogate,
) -> None:
    """Replace exactly the named layers, each by one of its scheme.

    Raises ConversionError for an unknown name; then nothing is changed.
    """
    modules = dict(model.named_modules())
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    replace_parts(model, schemes, activation, surrogate)
    if any(modules[name] in ends for name in schemes):
        untie(model)


def replace_parts(
    module: nn.Module, schemes: Mapping[str, WeightScheme], activation: ActivationScheme, surrogate: Surrogate
) -> None:
    """Like `replace_layers` for any part of a model, such as a block: it knows nothing of tied ends."""
    modules = dict(module.named_modules())
    missing = [name for name in schemes if name not in modules]
    if missing:
        raise ConversionError(f"{type(module).__name__} has no layer {missing[0]} ({len(missing)} names are unknown).")
    made = {name: _one_bit(modules[name], scheme, activation, surrogate) for name, scheme in schemes.items()}
    for name, layer in made.items():
        module.set_submodule(name, layer, strict=True)


def _one_bit(module: nn.Module, weight: WeightScheme, activation: ActivationScheme, surrogate: Surrogate) -> BitLayer:
    if isinstance(module, nn.Embedding):
        return BitEmbedding.from_embedding(module, weight, surrogate)
    return BitLinear.from_linear(module, weight, activation, surrogate)


def _is_other_table(module: nn.Module, role: str) -> bool:
    """Whether a layer is an embedding, but not that of the tokens (positions, token types)."""
    return isinstance(module, nn.Embedding) and role != "embedding"


def _overridden(row: PlanRow, overrides: Sequence[Override]) -> PlanRow:
    override = last_fitting(row.name, row.role, overrides)
    if row.action == "keep" or override is None:
        return row
    if override.scheme is None:
        return replace(row, action="keep", scheme=None, reason=f"kept by `{override.label}`")
    return replace(row, scheme=override.scheme)


def _plan_row(name: str, role: str, module: nn.Module, selection: Selection, weight_scheme: WeightScheme) -> PlanRow:
    if isinstance(module, nn.Embedding):
        shape = (module.num_embeddings, module.embedding_dim)
    else:
        weight, _ = linear_parameters(module)
        shape = (weight.shape[0], weight.shape[1])
    if _is_other_table(module, role):
        return PlanRow(name, role, shape, "keep", "only the token embedding can be 1-bit")
    chosen, reason = is_selected(name, role, selection)
    if not chosen:
        return PlanRow(name, role, shape, "keep", reason)
    return PlanRow(name, role, shape, "convert", reason, weight_scheme)


def _stacked_rows(model: nn.Module) -> tuple[PlanRow, ...]:
    """Stacked expert tensors: matrices that no Linear holds, named so that nobody thinks they were converted."""
    kernels = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, _ConvNd)}
    return tuple(
        PlanRow(name, OTHER, (parameter.shape[0] * parameter.shape[1], parameter.shape[2]), "keep", "a stacked tensor")
        for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and parameter.shape[0] > 1 and name not in kernels
    )


def _stacked_notes(model: nn.Module, rows: Sequence[PlanRow]) -> tuple[str, ...]:
    """Name the stacked tensors with their share of all weights: in a mixture of experts they are most of the model."""
    if not rows:
        return ()
    families = ", ".join(dict.fromkeys(star_numbers(row.name) for row in rows))
    share = sum(row.shape[0] * row.shape[1] for row in rows) / sum(part.numel() for part in model.parameters())
    return (f"{len(rows)} stacked tensors stay float, {share:.0%} of all weights: {families}.",)


def _notes(model: PreTrainedModel, rows: Iterable[PlanRow]) -> tuple[str, ...]:
    converted = {row.role for row in rows if row.action == "convert"} & {"head", "embedding"}
    if not converted or not is_tied(model):
        return ()
    if len(converted) == 2:
        effect = "each becomes 1-bit with a copy of its own"
    elif "head" in converted:
        effect = "it gets a copy, the embedding stays float"
    else:
        effect = "it keeps a float copy"
    return (f"The head shares its weight with the embedding: {effect}.",)


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output embedding is the very tensor of the input embedding."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and getattr(head, "weight", None) is getattr(embedding, "weight", 0)


def untie(model: PreTrainedModel) -> None:
    """Say in the model's config that head and embedding are two tensors; the caller makes them so."""
    model.config.tie_word_embeddings = False
    model.config.get_text_config().tie_word_embeddings = False
    model.all_tied_weights_keys = {}


def _convertible_weight(name: str, module: nn.Module) -> Tensor:
    try:
        weight = embedding_weight(module) if isinstance(module, nn.Embedding) else linear_parameters(module)[0]
    except ConversionError as error:
        raise ConversionError(f"{name}: {error}") from None
    if not weight.is_floating_point():
        raise ConversionError(f"{name} holds {weight.dtype}, an already quantised weight. Load the model in float32.")
    return weight


def _require_values(name: str, weight: Tensor, scheme: WeightScheme) -> None:
    if weight.is_meta:
        raise ConversionError(f"{name} has no data (device meta). Load the weights before converting.")
    broken = _count_nonfinite(weight)
    if broken:
        raise ConversionError(
            f"{name} has {broken} NaN or infinite weights of {weight.numel()}. The checkpoint is damaged; load a sound "
            f"one, or leave the layer out with `model.exclude=['{name}']`."
        )
    try:
        absmean_scale(weight, scheme)
    except ConversionError as error:
        raise ConversionError(f"{name}: {error}") from None


def _require_shape(name: str, weight: Tensor, scheme: WeightScheme) -> None:
    try:
        scheme.scale_shape(*weight.shape)
    except ConversionError as error:
        raise ConversionError(f"{name}: {error}") from None


def _count_nonfinite(weight: Tensor) -> int:
    return weight.numel() - int(torch.isfinite(weight).sum())


def _require_unshared(model: PreTrainedModel, names: Iterable[str]) -> None:
    """A selected layer must be reachable by one name only; the head may share with the embedding."""
    names = tuple(names)
    for spared in (model.get_input_embeddings(), model.get_output_embeddings()):
        owners: dict[int, list[str]] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and module is not spared:
                owners.setdefault(id(weight), []).append(name)
        for group in owners.values():
            _require_alone(next((name for name in names if name in group), None), group)


def _require_alone(name: str | None, group: list[str]) -> None:
    if name is not None and len(group) > 1:
        others = ", ".join(other for other in group if other != name)
        raise ConversionError(
            f"{name} shares its weight with {others}; converting it would split them. "
            f"Leave it out with `model.exclude=['{name}']`."
        )
