"""Names of figures in a tracker: a section, a slash, the figure, so that each section is a row of panels.

| section  | figures                                                          |
|----------|------------------------------------------------------------------|
| train    | loss and its terms                                               |
| val      | held-out figures                                                 |
| optim    | learning rate, norm of the gradient                              |
| quant    | hardness of the quantiser, shares of codes                       |
| speed    | tokens per second                                                |
| progress | tokens and passes over the text so far                           |
| summary  | what the run came to, where a tracker has no place of its own    |

`metrics.jsonl` has the names without sections: they are what the loop calls its figures, and files of runs are read by
others. A name that has a slash already is a name for panels.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

Value = TypeVar("Value")

HELD_OUT = "val_"
SUMMARY = "summary"
SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "lr": "optim",
        "grad_norm": "optim",
        "hardness": "quant",
        "flips": "quant",
        "flips_init": "quant",
        "zeros": "quant",
        "near_zero": "quant",
        "tokens_per_s": "speed",
        "tokens": "progress",
        "epoch": "progress",
    }
)


def panel(name: str) -> str:
    """Return what a tracker calls a figure of the loop: `loss` is `train/loss`, `val_ce` is `val/ce`."""
    if "/" in name:
        return name
    if name.startswith(HELD_OUT):
        return f"val/{name.removeprefix(HELD_OUT)}"
    return f"{SECTIONS.get(name, 'train')}/{name}"


def panels(figures: Mapping[str, Value]) -> dict[str, Value]:
    """Return figures under the names that trackers show."""
    return {panel(name): value for name, value in figures.items()}


def in_summary(figures: Mapping[str, Value]) -> dict[str, Value]:
    """Return closing figures under the names that they have among the others."""
    return {f"{SUMMARY}/{name}": value for name, value in figures.items()}
