"""THE table of what is fuzzed: how often, and what must come of it. Command line, tests and the page run over it.

A target is the function of its name in the file `home` of this folder. It takes an empty folder and returns an attempt:
(dice, number of the case) -> "refused" or "works". What else comes of it, or takes too long, is a defect. The first
numbers of some targets are cases made by hand; the rest is drawn from the dice, which follow from seed and number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Literal

Outcome = Literal["refused", "works"]
Attempt = Callable[[random.Random, int], Outcome]


@dataclass(frozen=True)
class Target:
    """One row. `count` cases are the whole campaign, `in_tests` the share of every test run."""

    name: str
    home: str
    count: int
    in_tests: int
    oracle: str
    slowest_s: float = 1.0  # of CPU: other work on the machine is not the reader's fault

    def make(self, work: Path) -> Attempt:
        """Prepare sound files in `work` and return the attempt; only now is the code under test imported."""
        return getattr(import_module(f"scripts.fuzz.{self.home}"), self.name)(work)


_IN_WORDS = "refused in words, or works; below 256 MiB"
TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        target.name: target
        for target in (
            Target("packed", "readers", 2000, 200, f"{_IN_WORDS}; where hashes are checked, never another tensor"),
            Target("native", "native", 2000, 200, "refused in words, or generates"),
            Target("hf_bitnet", "readers", 1000, 60, f"{_IN_WORDS}; no file outside the folder is opened"),
            Target("gguf", "readers", 1000, 50, f"{_IN_WORDS}, and computes"),
            Target("gguf_check", "gguf_files", 3000, 1000, f"{_IN_WORDS}; made by hand: refused", slowest_s=0.2),
            Target("gguf_round_trip", "gguf_files", 500, 40, "reads back equal, by us and by the `gguf` package"),
            Target("codecs", "codecs", 2000, 300, "codes come back; known bytes; damaged ones refused or canonical"),
            Target("kernels", "products", 2000, 80, "every kernel of this machine gives the integers of int64 numpy"),
            Target(
                "configs",
                "settings",
                1000,
                20,
                "exit 0, or 2 with the key or file named; nothing is started",
                slowest_s=3.0,
            ),
            Target("hostile_targets", "hostile", 77, 77, "refused; nothing is imported, started or called up"),
            Target("argv", "settings", 300, 30, "exit 0 or 2, no traceback", slowest_s=3.0),
            Target("rows", "rows", 1000, 300, "an error that names file and row, or masks that hold the answers"),
            Target("chats", "rows", 500, 80, "what is trained, decoded, is the assistant's text and its end"),
            Target("checkpoints", "checkpoints", 500, 200, "refused, or the very state that was saved"),
        )
    }
)
