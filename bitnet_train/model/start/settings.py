"""Settings of what a converted model starts training from: the section `init`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bitnet_train.settings import require_allowed, setting

InitScales = Literal["absmean", "als"]
InitLatents = Literal["copy", "error_feedback"]


@dataclass(frozen=True)
class InitConfig:
    """What a converted model starts training from, beyond copies of its weights."""

    equalise: bool = setting(
        False, "move per-input scales from 1-bit weights into what comes before them; the float model stays"
    )
    scales: InitScales = setting("absmean", "mean magnitude, or least squares on calibration text")
    latents: InitLatents = setting("copy", "the weights, or weights whose codes make up for each other's errors (GPTQ)")
    calibration_rows: int = setting(32, "rows of training text that are looked at", at_least=1)
    damping: float = setting(
        0.01,
        "error_feedback: damping of the inputs' second moments, in units of their mean",
        above=0,
        at_most=1,
    )

    def __post_init__(self) -> None:
        require_allowed(self, "init")

    @property
    def fits_layers(self) -> bool:
        """Whether `initialise` has anything to do."""
        return self.scales != "absmean" or self.latents != "copy"

    @property
    def needs_text(self) -> bool:
        """Whether calibration rows are looked at."""
        return self.fits_layers or self.equalise
