"""An error of a workbench in words for people. No torch here: a file may be refused before it is imported."""

from __future__ import annotations

from bitnet_train.errors import BitnetTrainError

_MOST_SHOWN = 2000


def told(error: BaseException) -> str:
    """Return what an error says; of one that is not meant for people its kind, too."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "not enough memory" in str(error):
        return "There is not enough memory for this model; `playground.worker_mb` allows more."
    text = str(error)[:_MOST_SHOWN]
    return text if isinstance(error, BitnetTrainError) else f"{type(error).__name__}: {text}"
