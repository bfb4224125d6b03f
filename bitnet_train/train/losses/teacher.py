"""Whether a model can teach another: the same tokens by the same numbers, and the same shape where states are matched.

A divergence between logits compares entry v of one model with entry v of the other. If the two vocabularies differ in a
single token, the numbers still come out, and mean nothing: so they are compared before anything is trained.

Where products are taken in bfloat16, a frozen model's weights can be rounded once instead of at every forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from bitnet_train.errors import ConfigError
from bitnet_train.model.config_fields import hidden_size, num_layers
from bitnet_train.train.losses.settings import LossConfig


def check_same_vocabulary(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, student_name: str, teacher_name: str
) -> None:
    """Raise ConfigError naming both sizes and the first token that differs, unless every id means the same token."""
    own, other = ({index: token for token, index in t.get_vocab().items()} for t in (student, teacher))
    if own == other:
        return
    first = next(index for index in sorted(own.keys() | other.keys()) if own.get(index) != other.get(index))
    raise ConfigError(
        f"`teacher.source={teacher_name}` has another vocabulary than `model.source={student_name}`: {len(other):,} "
        f"and {len(own):,} tokens, and token {first} is {_shown(other.get(first))} there and "
        f"{_shown(own.get(first))} here. Logits are compared token by token: choose a teacher of the same model "
        "family, or `teacher.source=null`."
    )


def check_comparable(student: PreTrainedModel, teacher: PreTrainedModel, loss: LossConfig) -> None:
    """Raise ConfigError when logits or, for `loss.hidden`, hidden states differ in shape."""
    own, other = (_sizes(model) for model in (student, teacher))
    if own["vocab_size"] != other["vocab_size"]:
        raise ConfigError(
            f"`teacher.source` gives {other['vocab_size']:,} logits and the model {own['vocab_size']:,}. Choose a "
            "teacher of the same model family, or `teacher.source=null`."
        )
    different = [name for name in ("hidden_size", "num_hidden_layers") if own[name] != other[name]]
    if loss.hidden > 0 and different:
        name = different[0]
        raise ConfigError(
            f"`loss.hidden={loss.hidden}` compares block by block, but the teacher's {name} is {other[name]} and the "
            f"model's {own[name]}. Set `loss.hidden=0`."
        )


def keep_products_in_bfloat16(teacher: nn.Module) -> None:
    """Round the weights and biases of a frozen model's linear layers to bfloat16, in place; a tied embedding stays.

    Autocast rounds the same tensors in the same way in every forward pass, so all its results are equal bit for bit.
    """
    for layer in teacher.modules():
        if isinstance(layer, nn.Linear | Conv1D):
            for name, parameter in layer.named_parameters(recurse=False):
                setattr(layer, name, nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False))


def _sizes(model: Any) -> dict[str, int]:
    return {
        "vocab_size": int(model.get_output_embeddings().weight.shape[0]),
        "hidden_size": hidden_size(model),
        "num_hidden_layers": num_layers(model),
    }


def _shown(token: str | None) -> str:
    return "missing" if token is None else f"`{token}`"
