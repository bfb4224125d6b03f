"""Which layers of a model become 1-bit: the role of every layer, and patterns over their names.

A role follows from where a layer sits. The output embedding is `head`, the input embedding `embedding`. Inside a
numbered block (`layers.3`, `h.3`, `blocks.3`) the names between the number and the layer decide first ("attn",
"attention" -> attention; "mlp", "ffn", "feed_forward", "expert" -> mlp), then the layer's own name (q_proj, c_attn,
fc1, gate_proj ...). A linear that none of these explains is `other`: never chosen by role, only by an `include`
pattern that names it.

A layer is selected when its role is in `roles`, it matches some `include` pattern (if there are any), and it matches no
`exclude` pattern (`patterns.py` says what matches).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.model.patterns import OTHER, ROLES, closest, matches

_ATTENTION_PARENTS = ("attn", "attention")
_MLP_PARENTS = ("mlp", "ffn", "feed_forward", "feedforward", "expert", "moe")
_ATTENTION_LEAVES = re.compile(
    r"^(qkv|[qkvo])(_?proj)?$|^(query|key|value|query_key_value|out_proj|c_attn|wqkv|w[qkvo]|dense)$", re.IGNORECASE
)
_MLP_LEAVES = re.compile(
    r"^(gate|up|down|gate_up)_proj$|^(fc\d|fc_in|fc_out|c_fc|w[123]|dense_h_to_4h|dense_4h_to_h|lin[12])$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Selection:
    """What to convert; the default is every attention and mlp linear of the decoder blocks."""

    include: tuple[str, ...] = ()
    """Globs over layer names; empty means all."""
    exclude: tuple[str, ...] = ()
    """Globs over layer names that stay as they are."""
    roles: tuple[str, ...] = ("attention", "mlp")
    """Subset of attention, mlp, head, embedding."""

    def __post_init__(self) -> None:
        unknown = [role for role in self.roles if role not in ROLES]
        if unknown or not self.roles:
            raise ConfigError(f"`model.roles={list(self.roles)}` must be some of: {', '.join(ROLES)}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {key: list(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Selection:
        """Inverse of `to_dict`."""
        return cls(**{key: tuple(value) for key, value in data.items()})


def candidates(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Every layer that could be converted or that a user may ask about: Linear, Conv1D and Embedding, by name."""
    kinds = (nn.Linear, Conv1D, nn.Embedding)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def layer_role(model: PreTrainedModel, name: str, module: nn.Module) -> str:
    """One of ROLES, or OTHER."""
    if isinstance(module, nn.Embedding):
        return "embedding" if module is model.get_input_embeddings() else OTHER
    if module is model.get_output_embeddings():
        return "head"
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return _role_in_block(parts[numbers[0] + 1 :]) if numbers else OTHER


def _role_in_block(parts: list[str]) -> str:
    for part in reversed(parts[:-1]):
        if any(word in part.lower() for word in _ATTENTION_PARENTS):
            return "attention"
        if any(word in part.lower() for word in _MLP_PARENTS):
            return "mlp"
    leaf = parts[-1] if parts else ""
    if _ATTENTION_LEAVES.match(leaf):
        return "attention"
    return "mlp" if _MLP_LEAVES.match(leaf) else OTHER


def check_patterns(selection: Selection, roles: Mapping[str, str], model_name: str) -> None:
    """Raise ConversionError when a pattern fits none of the layers, or an include only layers of unselected roles.

    `roles` maps the name of every layer that can be converted to its role.
    """
    for key in ("include", "exclude"):
        for index, pattern in enumerate(getattr(selection, key)):
            hits = [name for name in roles if matches(name, pattern)]
            label = f"`model.{key}[{index}]='{pattern}'`"
            if not hits:
                raise ConversionError(
                    f"{label} matched no layer in {model_name}. Closest: {closest(pattern, roles)}. "
                    "Fix the pattern or drop it."
                )
            hit_roles = {roles[name] for name in hits}
            if key == "include" and not hit_roles & {*selection.roles, OTHER}:
                raise ConversionError(
                    f"{label} matched only layers of role {', '.join(sorted(hit_roles))} (such as {hits[0]}), but "
                    f"`model.roles={list(selection.roles)}`. Add the role there or drop the pattern."
                )


def is_selected(name: str, role: str, selection: Selection) -> tuple[bool, str]:
    """Whether a layer is to be converted, and why (or why not) in a few words."""
    included = [pattern for pattern in selection.include if matches(name, pattern)]
    excluded = [pattern for pattern in selection.exclude if matches(name, pattern)]
    if excluded:
        return False, f"excluded by '{excluded[0]}'"
    if role == OTHER:
        return (True, f"included by '{included[0]}'") if included else (False, "not part of a known role")
    if role not in selection.roles:
        return False, f"role {role} is not selected"
    if selection.include and not included:
        return False, "matches no include pattern"
    return True, f"included by '{included[0]}'" if included else f"role {role}"
