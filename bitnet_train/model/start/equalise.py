"""Make weights easier to write as +-1 and keep the float model: per-input scales, folded into what comes before.

    W x = (W diag g) (diag 1/g x)         W diag g is quantised; 1/g goes into

    norm -> q, k, v    norm -> gate, up      the norm's weight (and bias), one g for all that read it
    up -> down                               the rows of up, as silu(gate) * up is linear in up
    v -> o                                   the rows of v, one g per dimension of a key-value head: the query heads
                                             that share the head share its g

    g_k = E[x_k^2]^(a/2) / mean|W_k|^b       a, b from a grid, the least sum_k E[x_k^2] / g_k^2 |w_k g_k - s c_k|^2

a = b = 0 is on the grid, so the estimated error never rises. The idea is AWQ's (arXiv 2306.00978), which looks at
activations only (b = 0); for +-1 codes b matters as much, because one scale serves weights of all sizes. Every fold is
checked by running the block before and after; where the function changed (a norm between v and o, say) it is undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bitnet_train.model.bit_linear import linear_parameters
from bitnet_train.model.bit_lora import is_norm
from bitnet_train.model.start.blocks import BlockCall, block_calls, decoder_blocks, embedded, run_block
from bitnet_train.model.start.input_moments import row_batches, second_moments
from bitnet_train.progress import track
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.weight import absmean_scale, expand_scale, float_codes

_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_WIDEST = 64.0  # g lies between 1/64 and 64 times its geometric mean
_TOLERANCE = 1e-3  # of the largest output: far above float32 rounding, far below a fold that is wrong


@dataclass(frozen=True)
class _Fold:
    """One g: the linears of a block that read it, and the norm or linear before them that undoes it."""

    readers: tuple[str, ...]
    source: str
    head_dim: int = 1
    sharing: int = 1
    """Query heads per key-value head, for v -> o; else 1."""

    def repeated(self, gain: Tensor) -> Tensor:
        """A g over the outputs of the source, as the readers' inputs see it."""
        heads = gain.reshape(-1, 1, self.head_dim)
        return heads.expand(-1, self.sharing, -1).reshape(-1)

    def shared(self, per_input: Tensor) -> Tensor:
        """A figure per input of the readers, averaged over the inputs that share one output of the source."""
        return per_input.reshape(-1, self.sharing, self.head_dim).mean(1).reshape(-1)


@torch.no_grad()
def equalise(
    model: PreTrainedModel, schemes: Mapping[str, WeightScheme], token_ids: Tensor, is_real: Tensor
) -> dict[str, Any]:
    """Fold per-input scales of the layers to be converted, in place; return how the estimated error fell, by fold.

    `schemes` has the scheme of every layer that will be converted, by full name. token_ids int64 [R, L], is_real bool
    [R, L]. Layers with nothing foldable before them stay as they are.
    """
    prefix, blocks = decoder_blocks(model)
    calls = block_calls(model, token_ids.shape[1])
    hidden = embedded(model, token_ids)
    figures: dict[str, float] = {}
    for index, (block, call) in track(list(enumerate(zip(blocks, calls, strict=True))), "Equalising", len(blocks)):
        inside = f"{prefix}.{index}."
        own = {name.removeprefix(inside): scheme for name, scheme in schemes.items() if name.startswith(inside)}
        for fold in _folds(block, hidden[:1], call):
            chosen = {name: own[name] for name in fold.readers if name in own}
            if chosen:
                ratio = _carry_out(block, fold, chosen, call, hidden, is_real)
                figures[f"{inside}{'+'.join(fold.readers)}"] = ratio
        for rows in row_batches(len(hidden)):
            hidden[rows] = run_block(block, hidden[rows], call)
    return {"error_ratio": figures}


def _carry_out(
    block: nn.Module,
    fold: _Fold,
    schemes: Mapping[str, WeightScheme],
    call: BlockCall,
    hidden: Tensor,
    is_real: Tensor,
) -> float:
    """Choose g, fold it in and check; return the error with g over that without (1 where nothing was done)."""
    modules = dict(block.named_modules())
    source, readers = modules[fold.source], [modules[name] for name in fold.readers]
    moments = second_moments(block, readers[0], call, hidden, is_real).diagonal() / is_real.sum()
    weights = {name: linear_parameters(modules[name])[0].float() for name in schemes}
    gain, ratio = _best_gain(weights, schemes, moments, fold)
    if ratio == 1.0:
        return ratio
    before = run_block(block, hidden[:1], call)
    kept = [(tensor, tensor.clone()) for module in (source, *readers) for tensor in module.parameters(recurse=False)]
    _undo_in(source, gain)
    for reader in readers:
        linear_parameters(reader)[0].mul_(fold.repeated(gain))
    after = run_block(block, hidden[:1], call)
    if float((after - before).abs().max()) <= _TOLERANCE * float(before.abs().max()):
        return ratio
    for tensor, value in kept:
        tensor.copy_(value)
    return 1.0


def _best_gain(
    weights: Mapping[str, Tensor], schemes: Mapping[str, WeightScheme], moments: Tensor, fold: _Fold
) -> tuple[Tensor, float]:
    size = fold.shared(moments).clamp(min=float(moments.mean()) * 1e-6)
    magnitude = fold.shared(torch.stack([weight.abs().mean(0) for weight in weights.values()]).mean(0))
    magnitude = magnitude.clamp(min=float(magnitude.mean()) * 1e-3)
    best = torch.ones_like(size)
    least = start = _error(weights, schemes, moments, fold.repeated(best))
    for a, b in product(_EXPONENTS, _EXPONENTS):
        gain = size.pow(a / 2) / magnitude.pow(b)
        gain = (gain / gain.log().mean().exp()).clamp(1 / _WIDEST, _WIDEST)
        error = _error(weights, schemes, moments, fold.repeated(gain))
        if error < least:
            best, least = gain, error
    return best, least / start if start > 0 else 1.0


def _error(weights: Mapping[str, Tensor], schemes: Mapping[str, WeightScheme], moments: Tensor, gain: Tensor) -> float:
    """The output error that quantising W diag g brings, inputs taken as uncorrelated."""
    total = 0.0
    for name, weight in weights.items():
        scaled, scheme = weight * gain, schemes[name]
        scale = expand_scale(absmean_scale(scaled, scheme, checked=False), *weight.shape)
        lost = scaled - scale * float_codes(scaled, scale, scheme)
        total += float((lost.square().sum(0) * (moments / gain.square())).sum())
    return total


def _undo_in(source: nn.Module, gain: Tensor) -> None:
    """Divide the outputs of a norm or a linear by g."""
    if isinstance(source, nn.Linear | Conv1D):
        weight, bias = linear_parameters(source)
        weight.div_(gain[:, None])
        if bias is not None:
            bias.div_(gain)
        return
    offset = _weight_offset(source)
    for name, parameter in source.named_parameters(recurse=False):
        shift = offset if name == "weight" else 0.0
        parameter.copy_((parameter + shift) / gain - shift)


def _weight_offset(norm: nn.Module) -> float:
    """1 for norms that multiply by 1 + weight (Gemma's), else 0: what is left when the weight is 0."""
    weight = norm.get_parameter("weight")
    kept = weight.detach().clone()
    probe = torch.linspace(-1, 1, len(kept), device=kept.device, dtype=kept.dtype)[None, None]
    weight.zero_()
    left = norm(probe) - norm(torch.zeros_like(probe))
    weight.copy_(kept)
    return 1.0 if bool(left.any()) else 0.0


def _folds(block: nn.Module, row: Tensor, call: BlockCall) -> list[_Fold]:
    """The folds of a block, in the order of its data flow."""
    modules = dict(block.named_modules())
    found = [_Fold(tuple(readers), norm) for norm, readers in _norm_readers(block, row, call).items()]
    for name in modules:
        parent, _, leaf = name.rpartition(".")
        before = f"{parent}.{ {'o_proj': 'v_proj', 'down_proj': 'up_proj'}.get(leaf, '') }"
        if before in modules:
            found.append(_Fold((name,), before, *_sharing(modules, name, before, parent)))
    return found


def _sharing(modules: Mapping[str, nn.Module], reader: str, source: str, attention: str) -> tuple[int, int]:
    num_inputs = linear_parameters(modules[reader])[0].shape[1]
    num_outputs = linear_parameters(modules[source])[0].shape[0]
    head_dim = getattr(modules[attention], "head_dim", num_outputs) if num_inputs != num_outputs else num_outputs
    return int(head_dim), num_inputs // num_outputs


def _norm_readers(block: nn.Module, row: Tensor, call: BlockCall) -> dict[str, list[str]]:
    """Which linears read the very output of which norm; norms that something else reads are found out by the check."""
    written: dict[int, tuple[str, Tensor]] = {}
    readers: dict[str, list[str]] = {}

    def write(name: str) -> Any:
        return lambda module, args, result: written.update({result.data_ptr(): (name, result)})

    def read(name: str) -> Any:
        def note(module: nn.Module, args: tuple[Any, ...]) -> None:
            norm, result = written.get(args[0].data_ptr(), ("", args[0]))
            if norm and result.shape == args[0].shape:
                readers.setdefault(norm, []).append(name)

        return note

    handles = []
    for name, module in block.named_modules():
        if is_norm(module):
            handles.append(module.register_forward_hook(write(name)))
        elif isinstance(module, nn.Linear | Conv1D):
            handles.append(module.register_forward_pre_hook(read(name)))
    try:
        run_block(block, row, call)
    finally:
        for handle in handles:
            handle.remove()
    return readers
