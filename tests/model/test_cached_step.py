"""A KV cache is handed over under the name that the model has for it, and no model warns of it."""

from __future__ import annotations

import warnings
from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ModelOutput

from bitnet_train.model.cached_step import cached_step


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@torch.no_grad()
def test_step_by_step_gives_what_one_pass_gives_and_warns_of_nothing(make_trained, family: str) -> None:
    model = make_trained(family, activation="none")
    ids = torch.randint(0, 256, (2, 9), generator=torch.Generator().manual_seed(0))
    whole = model(ids, use_cache=False).logits
    cache, pieces = None, []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for piece in ids.split([4, 1, 1, 3], dim=1):
            output, cache = cached_step(model, piece, cache)
            pieces.append(output.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-4)  # sums in another order, logits ~ 1
    assert cache.get_seq_length() == 9


def test_a_deprecated_call_of_a_model_fails_a_test(make_trained) -> None:
    """The filters of pyproject.toml see it, although it is torch that calls `forward`."""
    model = make_trained("llama")
    if "cache" not in signature(model.forward).parameters:
        pytest.skip("this transformers knows `past_key_values` alone")
    with pytest.raises(FutureWarning, match="past_key_values"):
        model(torch.zeros(1, 2, dtype=torch.long), past_key_values=None)


class _Older(nn.Module):
    """As models were before 5.24, and as remote code still is."""

    def forward(self, input_ids: Tensor, past_key_values: Any = None, use_cache: bool = False) -> ModelOutput:
        seen = (past_key_values or 0) + input_ids.shape[1]
        return ModelOutput(logits=input_ids, past_key_values=seen)


def test_a_model_that_knows_the_older_name_alone_gets_it() -> None:
    model: Any = _Older()
    _, cache = cached_step(model, torch.zeros(1, 3, dtype=torch.long))
    assert cached_step(model, torch.zeros(1, 2, dtype=torch.long), cache)[1] == 5
