"""Settings of block-wise reconstruction: the section `blockwise`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bitnet_train.settings import require_allowed, setting

BlockLoss = Literal["token_mse", "mse"]


@dataclass(frozen=True)
class BlockwiseConfig:
    """Training each decoder block alone to give what the full-precision block gives, before all train together."""

    enabled: bool = setting(False, "reconstruct blocks before training end to end")
    steps: int = setting(100, "optimiser steps per block", at_least=1)
    rows: int = setting(256, "rows of training text", at_least=1)
    row_tokens: int | None = setting(
        None, "tokens of the pieces these rows are cut into; null = whole rows", at_least=1
    )
    """Shorter ones are more steps, each of less work."""
    batch_rows: int = setting(8, "rows per optimiser step", at_least=1)
    lr: float | None = setting(None, "peak learning rate; null = 0.06 mean|W| of a block, over its |code|s", above=0)
    warmup_fraction: float = setting(0.2, "share of the steps in which the rate rises", at_least=0, at_most=1)
    """Adam's first steps move every latent by the whole rate: without it few steps end above what they started from."""
    loss: BlockLoss = setting("token_mse", "squared error over mean square: token by token, or of the batch")
    fp_inputs: float = setting(0.0, "share of rows a block reads from the full-precision model", at_least=0, at_most=1)
    random_tokens: float = setting(0.0, "share of tokens replaced by others of the vocabulary", at_least=0, at_most=1)
    """Drawn evenly; padding stays."""
    margin: float = setting(
        0.1,
        "how far latents are moved from where their code changes, in scales; 0 = left there",
        at_least=0,
        below=0.5,
    )
    """Once a block is done. Scales that are not learnable follow the latents, so such layers are left as they are."""
    memory_mb: int = setting(2048, "hidden states beyond this many MB lie in a file of the run", at_least=1)

    def __post_init__(self) -> None:
        require_allowed(self, "blockwise")
