"""Which layers of a model become 1-bit: the role of every layer, and patterns over their names.

A role follows from where a layer sits. The output embedding is `head`, the input embedding `embedding`. Inside a
numbered block (`layers.3`, `h.3`, `blocks.3`) the names between the number and the layer decide first ("attn",
"attention" -> attention; "mlp", "ffn", "feed_forward", "expert" -> mlp), then the layer's own name (q_proj, c_attn,
fc1, gate_proj ...). Three roles are never chosen by `model.roles`, only by an `include` pattern that names the layer:

    tower     outside the language model: an encoder of pictures or sound, which no text trains
    router    decides between experts, or how much of one is taken: a handful of outputs, of which one sign decides all
    other     a linear that nothing here explains

A layer is selected when its role is in `roles`, it matches some `include` pattern (if there are any), and it matches no
`exclude` pattern (`patterns.py` says what matches).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from bitnet_train.errors import ConversionError
from bitnet_train.model.patterns import BY_NAME_ONLY, OTHER, ROUTER, TOWER, closest, matches
from bitnet_train.model.settings import Selection

_ATTENTION_PARENTS = ("attn", "attention")
_MLP_PARENTS = ("mlp", "ffn", "feed_forward", "feedforward", "expert", "moe")
_ATTENTION_LEAVES = re.compile(
    r"^(qkv|[qkvo])(_?proj)?$|^(query|key|value|query_key_value|out_proj|c_attn|wqkv|w[qkvo]|dense)$", re.IGNORECASE
)
_MLP_LEAVES = re.compile(
    r"^(gate|up|down|gate_up)_proj$|^(fc\d|fc_in|fc_out|c_fc|w[123]|dense_h_to_4h|dense_4h_to_h|lin[12])$",
    re.IGNORECASE,
)
_ROUTERS = re.compile(r"^(gate|gating|wg|.*_gate|.*router.*|.*gate_preact)$", re.IGNORECASE)


def candidates(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Every layer that could be converted or that a user may ask about: Linear, Conv1D and Embedding, by name."""
    kinds = (nn.Linear, Conv1D, nn.Embedding)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def layer_roles(model: PreTrainedModel, layers: Mapping[str, nn.Module]) -> dict[str, str]:
    """One of ROLES, or of BY_NAME_ONLY, for each of these layers of a model."""
    language, towers = language_and_towers(model)
    ends = {id(model.get_input_embeddings()): "embedding", id(model.get_output_embeddings()): "head"}

    def role(name: str, module: nn.Module) -> str:
        if id(module) in ends:
            return ends[id(module)]
        if not name.startswith(language) or name.startswith(towers):
            return TOWER
        return OTHER if isinstance(module, nn.Embedding) else _role_in_model(name.split("."))

    return {name: role(name, module) for name, module in layers.items()}


def language_and_towers(model: nn.Module) -> tuple[str, tuple[str, ...]]:
    """Prefix of what belongs to the language model, and prefixes of the models of another kind inside it."""
    if not isinstance(model, PreTrainedModel):
        return "", ()
    text = model.config.get_text_config()
    decoder = model if text is model.config else model.get_decoder()
    names = {id(module): f"{name}." for name, module in model.named_modules() if name}
    towers = [
        names[id(module)]
        for module in model.modules()
        if isinstance(module, PreTrainedModel) and id(module) in names and not _is_of(module, model, text)
    ]
    return names.get(id(decoder), ""), tuple(towers)


def _is_of(module: PreTrainedModel, model: PreTrainedModel, text: PreTrainedConfig) -> bool:
    """Whether a model within a model has the config of the language model, or of all (it then holds that)."""
    return type(module.config) in (type(text), type(model.config))


def _role_in_model(parts: list[str]) -> str:
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return _role_in_block(parts[numbers[0] + 1 :]) if numbers else OTHER


def _role_in_block(parts: list[str]) -> str:
    if any(_ROUTERS.match(part) for part in parts):
        return ROUTER
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
            if key == "include" and not hit_roles & {*selection.roles, *BY_NAME_ONLY}:
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
    if role in BY_NAME_ONLY:
        return (True, f"included by '{included[0]}'") if included else (False, BY_NAME_ONLY[role])
    if role not in selection.roles:
        return False, f"role {role} is not selected"
    if selection.include and not included:
        return False, "matches no include pattern"
    return True, f"included by '{included[0]}'" if included else f"role {role}"
