"""Whether the logits of a model are a linear of its last states and nothing else, so that they can be made in parts.

Models scale or cap their logits in ways of their own (Gemma 2, Granite, Cohere), and a list of them would never be
whole. So a model is asked: over a few tokens, what its head is given must be the last states of its body, asked
alone for the same inputs, and what it gives must be the logits. Without weights, on the meta device, there is nothing
to ask: the estimate of a dry run takes a head of a known kind for plain.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from bitnet_train.model.rounded_table import RoundedLinear
from bitnet_train.train.losses.int8_teacher import FrozenInt8Linear

ROW_BY_ROW = (nn.Linear, RoundedLinear, FrozenInt8Linear)
NUM_TOKENS = 4


class PlainHead(NamedTuple):
    """What makes the last hidden states of a model, and the linear that makes logits of them, row by row."""

    body: nn.Module
    head: nn.Module


def plain_head(model: nn.Module) -> PlainHead | None:
    """Return both, or None where logits are made in another way. No random number is drawn."""
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(whole, PreTrainedModel) or whole.base_model is whole:
        return None
    head = whole.get_output_embeddings()
    if type(head) not in ROW_BY_ROW or not isinstance(head, nn.Module):
        return None
    found = PlainHead(whole.base_model, head)
    return found if _is_meta(whole) or _makes_the_logits(whole, found) else None


def _is_meta(model: nn.Module) -> bool:
    return any(parameter.is_meta for parameter in model.parameters())


@torch.no_grad()
def _makes_the_logits(whole: PreTrainedModel, parts: PlainHead) -> bool:
    device = next(parts.body.parameters()).device
    ids = torch.arange(NUM_TOKENS, device=device)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": ids}
    calls: list[tuple[Any, Any]] = []
    listening = parts.head.register_forward_hook(lambda head, given, made: calls.append((given[0], made)))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # dropout leaves out the same twice
        logits = whole(**inputs, use_cache=False).logits
        torch.manual_seed(0)
        states = parts.body(**inputs, use_cache=False).last_hidden_state
    listening.remove()
    return len(calls) == 1 and torch.equal(calls[0][0], states) and torch.equal(calls[0][1], logits)
