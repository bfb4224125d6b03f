"""llama.cpp's types of the original: made when they are asked for, with an importance matrix, and kept."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerBase

from bitnet_train.evaluate.batches import count_labels
from bitnet_train.evaluate.windows import windows
from bitnet_train.whole import whole_file
from scripts.frontier.texts import ids_sha256, read_text
from scripts.llama_cpp.importance import WINDOW_TOKENS, importance_of
from scripts.llama_cpp.libllama import quantize_file

TYPES = (
    *("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "IQ3_XXS", "Q2_K"),
    *("IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
    *("Q2_0", "TQ2_0", "TQ1_0", "Q1_0"),
)
"""llama.cpp's names, roughly from wide to narrow."""


class Quantiser:
    """Makes files of one original in `work`, in a folder of their own for every original and importance text."""

    def __init__(
        self, original: Path, sha256: str, text: Path, tokens: int, tokenizer: PreTrainedTokenizerBase, work: Path
    ) -> None:
        """Read the first `tokens` tokens of `text` for the importance matrix; raises as `read_text` does."""
        self._original, self.text_name = original, text.name
        self._rows = windows(
            read_text(text, "--importance"), tokenizer, WINDOW_TOKENS, max_windows=max(1, tokens // WINDOW_TOKENS)
        )
        self._ids_sha256 = ids_sha256(self._rows)
        self._folder = work / hashlib.sha256(f"{sha256} {self._ids_sha256}".encode()).hexdigest()[:12]

    def facts(self) -> dict[str, Any]:
        """Return what the importance matrix is of."""
        return {"text": self.text_name, "tokens": count_labels(self._rows), "sha256": self._ids_sha256}

    def file(self, name: str, num_threads: int) -> Path:
        """Return the original as a file of the type `name`; ValueError with llama.cpp's words where it refuses."""
        path = self._folder / f"{name}.gguf"
        if not path.is_file():
            with whole_file(path) as draft:
                quantize_file(
                    self._original,
                    draft,
                    name.lower(),
                    allow_requantize=True,
                    importance=self._importance(num_threads),
                    num_threads=num_threads,
                )
        return path

    def _importance(self, num_threads: int) -> dict[str, np.ndarray]:
        path = self._folder / "importance.safetensors"
        if not path.is_file():
            lengths = self._rows["attention_mask"].sum(1).tolist()
            rows = [ids[:length] for ids, length in zip(self._rows["input_ids"].tolist(), lengths, strict=True)]
            with whole_file(path) as draft:
                save_file(importance_of(self._original, rows, num_threads=num_threads), draft)
        return self._kept_importance

    @cached_property
    def _kept_importance(self) -> dict[str, np.ndarray]:
        return load_file(self._folder / "importance.safetensors")
