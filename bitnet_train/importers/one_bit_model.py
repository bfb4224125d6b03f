"""A model whose layers are 1-bit already: codes and scales from a file become `BitLinear` and `BitEmbedding`, exactly.

    latent weight = scale * code        learnable scale = the file's scale

so that the quantiser, which everything else calls, gives back the codes and the scales of the file: this is checked
for every layer, by equality, before the model is handed out. Under a scale of 0, which llama.cpp gives a block of
zeros, latents are the smallest normal number * code, so codes come back there too. A fixed scale, mean|W|, would differ
wherever a block has zeros. Where the file says no more than codes and scales, one `WeightScheme` describes all weights
that it stores in the same way (`OneBitWeight.stored_as`), the coarsest that holds every scale there is:

    binary     no code is 0 anywhere, else ternary
    tensor     each weight has one scale throughout; else row; else group, the largest size that fits all of them
    float16    every scale is 0 or a normal float16 number, else float32

With the record beside it such a model is what `convert` makes of a float one: it can be trained, merged and exported.
Not done here: reading files (`import_gguf`, `import_hf_bitnet`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from bitnet_train.errors import FormatError
from bitnet_train.model.bit_embedding import BitEmbedding, embedding_weight
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.bit_linear import BitLinear, linear_parameters
from bitnet_train.model.convert import untie
from bitnet_train.model.converted import ConversionRecord
from bitnet_train.model.patterns import BY_NAME_ONLY, ROLES
from bitnet_train.model.select import candidates, layer_roles
from bitnet_train.model.settings import Selection
from bitnet_train.quant.scheme import ActivationScheme, Granularity, WeightScheme
from bitnet_train.quant.surrogate import Identity
from bitnet_train.quant.weight import SMALLEST_SCALE, dequantize, divisor

_SMALLEST_FLOAT16 = torch.finfo(torch.float16).tiny


@dataclass(frozen=True)
class OneBitWeight:
    """A weight as a file holds it: codes int8 [N, K] of -1, 0, +1 and scale float32 [1, 1], [N, 1] or [N, K/G].

    `origin` names its tensor in the file, for errors; `stored_as` is how the file writes it, such as a block type.
    """

    origin: str
    codes: Tensor
    scale: Tensor
    stored_as: str = ""


def empty_model(config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a config, its weights allocated and not written: no time and next to no memory until they are."""
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    model.tie_weights()
    return model.eval()


def fill_one_bit(
    model: PreTrainedModel,
    weights: Mapping[str, OneBitWeight],
    floats: Mapping[str, Tensor],
    activation: ActivationScheme,
    schemes: Mapping[str, WeightScheme] | None = None,
) -> ConversionRecord:
    """Give an empty model its 1-bit layers, by module name, and every other parameter, by its full name; in place.

    `schemes` has, for each weight, one with learnable scales that holds it; None takes `common_schemes`.

    A head and an embedding that share one weight are untied when one of them is 1-bit; then both must be given.

    Raises FormatError when a scale or a code cannot be kept exactly (naming tensor, row and block), when a tensor is
    missing, is nobody's, or has another shape than the model; ConversionError when a layer is of a kind that has no
    1-bit form.
    """
    schemes = schemes or common_schemes(weights)
    modules = dict(model.named_modules())
    made: dict[str, BitLayer] = {}
    for name, weight in weights.items():
        if name not in modules:
            raise FormatError(f"{weight.origin} belongs to {name}, which {type(model).__name__} does not have.")
        made[name] = _bit_layer(modules[name], weight, schemes[name], activation)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if any(modules[name] in ends for name in made):
        untie(model)
    selection = selection_of(model, set(made))
    for name, layer in made.items():
        model.set_submodule(name, layer, strict=True)
    _fill_floats(model, made, floats.items())
    ordered = {name: schemes[name] for name in modules if name in made}
    counts = Counter(ordered.values())
    usual = max(counts, key=counts.__getitem__, default=WeightScheme(learnable_scale=True))
    return ConversionRecord.of_schemes(ordered, usual, activation=activation, surrogate=Identity(), selection=selection)


def fill_floats(model: PreTrainedModel, floats: Iterable[tuple[str, Tensor]]) -> None:
    """Give an empty model without 1-bit layers all of its parameters, by full name, one after the other.

    Raises FormatError as `fill_one_bit`.
    """
    _fill_floats(model, {}, floats)


def common_schemes(weights: Mapping[str, OneBitWeight]) -> dict[str, WeightScheme]:
    """A scheme for every weight, the same for those that are stored alike; see the module docstring."""
    alike: dict[str, list[OneBitWeight]] = {}
    for weight in weights.values():
        alike.setdefault(weight.stored_as, []).append(weight)
    schemes = {stored_as: common_scheme(some) for stored_as, some in alike.items()}
    return {name: schemes[weight.stored_as] for name, weight in weights.items()}


def common_scheme(weights: Sequence[OneBitWeight]) -> WeightScheme:
    """The one scheme that holds all of these weights."""
    has_zeros = any(bool((weight.codes == 0).any()) for weight in weights)
    scales = [weight.scale for weight in weights]
    is_half = all(bool(_is_float16(scale).all()) for scale in scales)
    granularity: Granularity = "group"
    if all(_is_constant(scale) for scale in scales):
        granularity = "tensor"
    elif all(bool((scale == scale[:, :1]).all()) for scale in scales):
        granularity = "row"
    group_size = gcd(*(weight.codes.shape[1] // weight.scale.shape[1] for weight in weights))
    return WeightScheme(
        name="ternary" if has_zeros else "binary",
        granularity=granularity,
        group_size=group_size if granularity == "group" else WeightScheme.group_size,
        learnable_scale=True,
        scale_dtype="float16" if is_half else "float32",
    )


def _is_float16(scale: Tensor) -> Tensor:
    return (scale.half().float() == scale) & ((scale == 0) | (scale.abs() >= _SMALLEST_FLOAT16))


def _is_constant(scale: Tensor) -> bool:
    return bool((scale == scale[0, 0]).all())


def _bit_layer(module: nn.Module, weight: OneBitWeight, scheme: WeightScheme, activation: ActivationScheme) -> BitLayer:
    _require_scales(weight)
    num_rows, num_inputs = weight.codes.shape
    layer: BitLayer
    if isinstance(module, nn.Embedding):
        shape = embedding_weight(module).shape
        layer = BitEmbedding(
            num_rows, num_inputs, padding_idx=module.padding_idx, weight_scheme=scheme, surrogate=Identity()
        )
    else:
        float_weight, bias = linear_parameters(module)
        shape = float_weight.shape
        layer = BitLinear(
            num_inputs,
            num_rows,
            bias=bias is not None,
            weight_scheme=scheme,
            activation=activation,
            surrogate=Identity(),
        )
    if shape != weight.codes.shape:
        raise FormatError(f"{weight.origin} is {num_rows} x {num_inputs}; the config of its model says {_text(shape)}.")
    _fill(layer, weight)
    return layer.eval()


@torch.no_grad()
def _fill(layer: BitLayer, weight: OneBitWeight) -> None:
    assert layer.scale is not None
    layer.scale.copy_(_spread(weight.scale, layer.scale.shape))
    layer.weight.copy_(dequantize(weight.codes, divisor(weight.scale)))
    codes, scale = layer.quantized()
    same = (codes == weight.codes).all() and torch.equal(scale, layer.scale)
    layer.train()  # forgets the codes: they are quickly made again, and take a quarter of the memory of the latents
    if not same:
        row = int(torch.nonzero((codes != weight.codes).any(dim=1) | (scale != layer.scale).any(dim=1))[0])
        raise FormatError(f"{weight.origin}, row {row}: its codes and scales cannot be kept exactly as {layer}.")


def _spread(scale: Tensor, shape: torch.Size) -> Tensor:
    """The same scales as a coarser or finer grid: (1, 1), (N, 1) or (N, G)."""
    num_rows, num_groups = shape
    scale = scale[:num_rows, :num_groups]
    return scale.repeat_interleave(num_groups // scale.shape[1], dim=1).expand(shape)


def _require_scales(weight: OneBitWeight) -> None:
    is_zero = (weight.scale == 0) & ~torch.signbit(weight.scale)  # -0 would come out as 0
    bad = ~(is_zero | ((weight.scale >= SMALLEST_SCALE) & torch.isfinite(weight.scale)))
    if bad.any():
        row, block = (int(index) for index in torch.nonzero(bad)[0])
        raise FormatError(
            f"{weight.origin}: the scale of row {row}, block {block} is {float(weight.scale[row, block]):g}, and a "
            "1-bit layer keeps finite scales of 0 and above only."
        )


@torch.no_grad()
def _fill_floats(model: PreTrainedModel, made: Mapping[str, BitLayer], floats: Iterable[tuple[str, Tensor]]) -> None:
    own = {f"{name}.{part}" for name in made for part in ("weight", "scale")}
    needed = {name: parameter for name, parameter in model.named_parameters() if name not in own}
    stored = model.state_dict(keep_vars=True)  # besides parameters: buffers, and second names of tied tensors
    computed = dict(model.named_buffers()).keys() - stored.keys()
    second: dict[str, Tensor] = {}
    unknown = []
    left = dict.fromkeys(needed)
    for name, value in floats:
        target = stored.get(name)
        if name in computed:
            continue
        if target is None or name in own:
            unknown.append(name)
            continue
        if value.shape != target.shape:
            raise FormatError(f"{name} is {_text(value.shape)}; the config of its model says {_text(target.shape)}.")
        if isinstance(target, nn.Parameter) and name not in needed:
            second[name] = value
        else:
            target.copy_(value)
            left.pop(name, None)
    if left:
        raise FormatError(
            f"{type(model).__name__} needs {next(iter(left))}, which the file does not hold ({len(left)} are missing)."
        )
    if unknown:
        raise FormatError(f"{type(model).__name__} has no place for {unknown[0]} ({len(unknown)} tensors like it).")
    for name, value in second.items():
        if not torch.equal(value.to(stored[name].dtype), stored[name]):
            raise FormatError(f"{name} is tied to another tensor in {type(model).__name__}; the file has another one.")


def _text(shape: torch.Size) -> str:
    return " x ".join(map(str, shape))


def selection_of(model: PreTrainedModel, names: set[str]) -> Selection:
    """A selection that chooses exactly these layers of the model."""
    roles = layer_roles(model, candidates(model))
    chosen = {roles[name] for name in names}
    include = tuple(name for name in roles if name in names) if chosen & BY_NAME_ONLY.keys() else ()
    exclude = tuple(
        name for name, role in roles.items() if role in chosen and role not in BY_NAME_ONLY and name not in names
    )
    return Selection(include, exclude, tuple(role for role in ROLES if role in chosen) or Selection.roles)
