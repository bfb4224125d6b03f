"""A run that diverges stops, whether its loss is no number or merely far above what it was.

The second is seen by `DivergenceWatch`: of the first term over logits that is on (nats per token, whatever the weights
and balances), the lowest value so far is kept; `divergence_steps` steps in a row more than `divergence_nats` above it
end the run. The defaults, 3 nats and 20 steps, are 20 times the perplexity: batches differ by tenths of a nat, and a
run that comes back from so far by itself we have not seen. While the quantiser hardens the loss rises by design, so the
lowest value is forgotten at every change of the hardness. A checkpoint keeps what was seen, so a resumed run ends where
one that was not interrupted would have.

A freshly swapped model is worse before it is better, so in the warm-up a rise counts from what a uniform guess over the
vocabulary costs, where that is above the lowest value, and ends nothing. A rise that lasts beyond the warm-up counts
on; once the loss is below a uniform guess, the lowest value is that of after the warm-up. The reverse KL of a uniform
guess has no such bound, and is not watched before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitnet_train.errors import TrainingError
from bitnet_train.train.losses.logit_loss import LOGIT_TERMS

UNBOUNDED = "reverse_kl"
_STATE = ("best", "last", "rising", "hardness", "guess")
REMEDY = (
    "Lower `optimizer.lr`, raise `schedule.warmup_fraction`, or use `trainer.precision=fp32`: "
    "`bitnet-train train RUN optimizer.lr=...` goes on from that checkpoint."
)


def is_finite(loss: float, grad_norm: float) -> bool:
    """Whether both are numbers."""
    return math.isfinite(loss) and math.isfinite(grad_norm)


def check_finite(loss: float, grad_norm: float, step: int, last_checkpoint: Path | None, where: str = "") -> None:
    """Pass finite numbers.

    Raises
    ------
    TrainingError
        When either is NaN or infinite: names the step, the layer (`where`), the last good checkpoint and what to try.
    """
    if is_finite(loss, grad_norm):
        return
    culprit = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {grad_norm}"
    raise TrainingError(
        f"Training diverged at step {step}: {culprit}. {_sentence(where)}No weight was changed by this step. "
        f"{_saved(last_checkpoint)} {REMEDY}"
    )


@dataclass
class DivergenceWatch:
    """Sees a loss that rose and stays: `steps` in a row more than `nats` above the best end a run; None = never."""

    nats: float | None = 3.0
    steps: int = 20
    best: float = field(default=math.inf, init=False)
    last: float = field(default=math.nan, init=False)
    rising: int = field(default=0, init=False)
    hardness: float | None = field(default=None, init=False)
    guess: float | None = field(default=None, init=False)

    def observe(
        self,
        means: Mapping[str, float],
        active: Mapping[str, float],
        hardness: float | None,
        guess: float | None = None,
    ) -> None:
        """Take in the means per token of a step; `active` holds the terms that are on.

        guess: in the warm-up, the nats per token of a uniform guess.
        """
        name = next((term for term in LOGIT_TERMS if term in active), None)
        if name is None or self.nats is None or (guess is not None and name == UNBOUNDED):
            return
        if hardness != self.hardness:
            self.hardness, self.best, self.rising = hardness, math.inf, 0
        self.last = means[name]
        self._warm(guess)
        self.best = min(self.best, self.last)
        bar = self.best if self.guess is None else max(self.best, self.guess)
        self.rising = self.rising + 1 if self.last > bar + self.nats else 0

    def _warm(self, guess: float | None) -> None:
        """Keep what a uniform guess costs for as long as it counts."""
        if guess is not None:
            self.guess = guess
        elif self.guess is not None and self.last <= self.guess:
            self.guess, self.best = None, math.inf

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {name: getattr(self, name) for name in _STATE}

    def take(self, state: Mapping[str, Any] | None) -> None:
        """Take up what a checkpoint kept; None, of a checkpoint of before, leaves this as it is."""
        for name, value in (state or {}).items():
            setattr(self, name, value)

    def describe(self) -> str:
        """Say how far the last step lies above the best."""
        return f"the loss jumped to {self.last:.3f} nats a token, and the best was {self.best:.3f}"

    @property
    def is_calm(self) -> bool:
        """Whether a checkpoint saved now is one to come back to."""
        return self.rising == 0

    def check(self, step: int, good_checkpoint: Path | None, where: str) -> None:
        """Raise TrainingError when the rise has lasted: names the step, the layer and the last good checkpoint."""
        if self.nats is None or self.rising < self.steps:
            return
        raise TrainingError(
            f"Training diverged: at step {step} the loss has been more than {self.nats:g} nats above its best, "
            f"{self.best:.3f}, for {self.rising} steps in a row. {_sentence(where)}{_saved(good_checkpoint)} Lower "
            "`optimizer.lr` or raise `schedule.warmup_fraction`, and go on with `trainer.resume=PATH` of that "
            "checkpoint; `trainer.divergence_nats=null` switches this check off."
        )


def _sentence(where: str) -> str:
    return f"{where[0].upper()}{where[1:].rstrip('.')}. " if where else ""


def _saved(checkpoint: Path | None) -> str:
    return f"Last good checkpoint: {checkpoint}." if checkpoint else "No checkpoint had been written yet."
