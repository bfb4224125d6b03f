"""A loss or a gradient that is not a number stops the run before it reaches a weight."""

from __future__ import annotations

import math
from pathlib import Path

from bitnet_train.errors import TrainingError


def check_finite(loss: float, grad_norm: float, step: int, last_checkpoint: Path | None) -> None:
    """Pass finite numbers.

    Raises
    ------
    TrainingError
        When either is NaN or infinite: names the step, the last good checkpoint and what to try.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    culprit = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {grad_norm}"
    saved = f"Last good checkpoint: {last_checkpoint}." if last_checkpoint else "No checkpoint had been written yet."
    raise TrainingError(
        f"Training diverged at step {step}: {culprit}. No weight was changed by this step. {saved} "
        "Lower `optimizer.lr`, raise `schedule.warmup_fraction`, or use `trainer.precision=fp32`; "
        "then run again, with `trainer.resume=auto` to go on from that checkpoint."
    )
