"""Settings of what each layer costs at 1 bit: the section `sensitivity`."""

from __future__ import annotations

from dataclasses import dataclass

from bitnet_train.settings import require_allowed, setting


@dataclass(frozen=True)
class SensitivityConfig:
    """Which parts of a model suffer most, measured without training."""

    max_tokens: int = setting(512, "held-out tokens each trial is measured on, at most", at_least=1)
    layers: bool = setting(False, "try every layer on its own too, besides families and blocks")
    extra_mb: float | None = setting(
        None, "megabytes that the suggestion may add; null = `sensitivity.extra_share`", above=0
    )
    extra_share: float = setting(0.25, "what the suggestion may add, as a share of the packed layers' bytes", above=0)

    def __post_init__(self) -> None:
        require_allowed(self, "sensitivity")
