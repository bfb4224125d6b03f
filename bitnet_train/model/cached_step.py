"""One forward pass with a KV cache, under either of the two names transformers has for it.

Since 5.24 models take and return `cache`; `past_key_values` warns at every call until 5.40 and is unknown from then on.
Before, and in models with code of their own, there is `past_key_values` alone. The model's own signature decides.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

_NAMES = ("cache", "past_key_values")


def cached_step(model: PreTrainedModel, token_ids: Tensor, cache: Any = None, **options: Any) -> tuple[Any, Any]:
    """Return the output for token ids [B, L] that follow what `cache` holds, and the cache grown by them."""
    output: Any = model(token_ids, use_cache=True, **{_cache_name(model): cache}, **options)
    return output, next(output[name] for name in _NAMES if output.get(name) is not None)


def _cache_name(model: PreTrainedModel) -> str:
    accepted = signature(model.forward).parameters
    return next((name for name in _NAMES if name in accepted), _NAMES[-1])
