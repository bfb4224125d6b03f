"""Other models of the same original by size and quality, as `python -m scripts.frontier` wrote them.

A ratio compares only with one on the same tokens: a text of the same name, in as many tokens and windows of the same
length, side by side. `Frontier.holds` asks that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitnet_train.errors import ConfigError
from bitnet_train.evaluate.measured import ScoredText
from bitnet_train.facts import read
from bitnet_train.json_text import parse_json


@dataclass(frozen=True)
class Original:
    """The model that all are made from, and the bytes of its file."""

    name: str
    file_bytes: int


@dataclass(frozen=True)
class FrontierText:
    """A text as it was measured: windows side by side, and the tokens predicted in all of them."""

    windows: int
    window_tokens: int
    tokens: int


@dataclass(frozen=True)
class Kept:
    """What a model keeps on a text: perplexity over the original's, and KL divergence in nats a token."""

    ratio: float
    kl_nats: float


@dataclass(frozen=True)
class Point:
    """One model: whose it is, bytes on disk, and what it keeps by text."""

    side: str
    file_bytes: int
    quality: dict[str, Kept]


@dataclass(frozen=True)
class Frontier:
    """The models by name, and the texts they were measured on."""

    original: Original
    texts: dict[str, FrontierText]
    points: dict[str, Point]

    def holds(self, scored: ScoredText) -> bool:
        """Whether a text was scored in the same windows as the one of this name here."""
        known = self.texts.get(scored.name)
        if known is None or scored.window_overlap is not False:
            return False
        return (known.window_tokens, known.tokens) == (scored.window_tokens, scored.compared.student.tokens)


def read_frontier(path: str) -> Frontier:
    """Read a result file; ConfigError for what is no JSON file, FormatError for a field that is wrong."""
    try:
        values = parse_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"`evaluate.frontier={path}` cannot be read: {error}. Give the result file of `python -m scripts.frontier`."
        ) from error
    return read(Frontier, values, path)
