"""llama.cpp, and logits that were computed before, as modules that `bitnet_train.evaluate` measures like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from scripts.llama_cpp.libllama import LlamaCpp


class LlamaCppModule(nn.Module):
    """llama.cpp's model as a causal LM on the CPU: ids int64 [R, L], without padding, to float32 [R, L, V]."""

    def __init__(self, model: LlamaCpp) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=model.vocab_size)
        self._model = model
        self._place = _on_the_cpu()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        """Return an object with `logits`, as transformers does."""
        assert not use_cache, "every row is computed from its start"
        assert bool(attention_mask.all()), "llama.cpp is given no padding"
        rows = [torch.from_numpy(self._model.logits(ids)) for ids in input_ids.tolist()]
        return SimpleNamespace(logits=rows[0][None] if len(rows) == 1 else torch.stack(rows))


class Recorded(nn.Module):
    """A causal LM whose logits are computed once for a batch of ids and kept in `folder`, float32 [R, L, V].

    `make` gives the model when logits are missing: a run that adds a point needs none of it.
    """

    def __init__(self, make: Callable[[], nn.Module], vocab_size: int, folder: Path) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=vocab_size)
        self._make, self._folder = make, folder
        self._place = _on_the_cpu()

    @cached_property
    def _model(self) -> nn.Module:
        return self._make().eval()

    def forward(self, input_ids: Tensor, **inputs: Tensor | bool) -> SimpleNamespace:
        """Return an object with `logits`, mapped from the file where there is one."""
        path = self._folder / f"{hashlib.sha256(input_ids.numpy().tobytes()).hexdigest()[:16]}.npy"
        if not path.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".partial.npy")
            np.save(draft, self._model(input_ids=input_ids, **inputs).logits.float().numpy())
            draft.rename(path)
        return SimpleNamespace(logits=torch.from_numpy(np.load(path, mmap_mode="c")))


def _on_the_cpu() -> nn.Parameter:
    """Return a parameter that only says where logits lie."""
    return nn.Parameter(torch.zeros(()), requires_grad=False)
