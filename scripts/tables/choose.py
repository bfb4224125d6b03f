"""Which recipe for which memory, time and quality, from what runs of the recipes came to.

Quality, time and size are of `recipes/results/RECIPE.json`. Memory is what the recipe's header says a run takes, where
somebody watched one; else the highest peak of the grids of trainings that are of this recipe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bitnet_train.config.layout import recipes
from bitnet_train.run.result import RunFacts

USABLE = 0.75  # of a machine's memory; the rest is the system's and other programs'
BUDGETS_GB = (2, 4, 8)
SAYS_WHAT = 1  # line of a recipe's header, after `# @package`
_SAYS_MEMORY = re.compile(r"\b(\d+) GB of memory")


@dataclass(frozen=True)
class Choice:
    """A recipe, and what is known of it; None for what nobody measured."""

    name: str
    what: str
    memory_gb: float | None
    facts: RunFacts | None

    def fits(self, gigabytes: float) -> bool:
        """Whether a run is known to take no more than the usable part of so much memory."""
        return self.memory_gb is not None and self.memory_gb <= USABLE * gigabytes


def choices(results: Path) -> list[Choice]:
    """Return the recipes, baselines left out, best ratio first, those without a finished run last."""
    peaks = _peaks_gb(results)
    found = []
    for name, path in recipes().items():
        if "/" in name:
            continue
        header = path.read_text(encoding="utf-8")
        said = _SAYS_MEMORY.search(header)
        what = header.splitlines()[SAYS_WHAT].removeprefix("#").strip()
        found.append(Choice(name, what, float(said[1]) if said else peaks.get(name), _facts(results / f"{name}.json")))
    return sorted(found, key=lambda each: each.facts.perplexity.ratio if each.facts else float("inf"))


def _peaks_gb(results: Path) -> dict[str, float]:
    """Return the highest peak of resident memory of the grids' trainings, by recipe."""
    peaks: dict[str, float] = {}
    for path in results.glob("ablation_*.json"):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            peaks[row["recipe"]] = max(peaks.get(row["recipe"], 0.0), row["peak_mb"] / 1000)
    return peaks


def _facts(path: Path) -> RunFacts | None:
    return RunFacts.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path)) if path.is_file() else None


def choice_table(results: Path) -> list[str]:
    """Return the lines: what fits into a machine's memory, then every recipe."""
    known = choices(results)
    return [*_by_memory(known), "", *_all(known), "", *_notes()]


def _by_memory(known: list[Choice]) -> Iterator[str]:
    yield "| memory of the machine | take | what fits |"
    yield "|---|---|---|"
    measured = [each for each in known if each.memory_gb is not None]
    for gigabytes in BUDGETS_GB:
        fitting = [each for each in measured if each.fits(gigabytes)]
        names = ", ".join(f"`{each.name}`" for each in fitting) or "none"
        names = "every recipe below whose memory is known" if len(fitting) == len(measured) else names
        real = [each.facts for each in fitting if each.facts is not None and each.facts.source != "tiny"]
        best = f"`{real[0].recipe}`: ratio {real[0].perplexity.ratio:.2f}, the best measured" if real else names
        yield f"| {gigabytes} GB{' or more' if gigabytes == BUDGETS_GB[-1] else ''} | {best} | {names} |"


def _all(known: list[Choice]) -> Iterator[str]:
    yield "| recipe | ratio | memory | time | tokens | folder | what it makes |"
    yield "|---|---|---|---|---|---|---|"
    for each in known:
        link = f"[`{each.name}`](../recipes/{each.name}.yaml)"
        memory = f"{each.memory_gb:.1f} GB" if each.memory_gb is not None else "not measured"
        ratio, time, tokens, folder = _came_to(each.facts)
        yield f"| {link} | {ratio} | {memory} | {time} | {tokens} | {folder} | {each.what} |"


def _came_to(facts: RunFacts | None) -> tuple[str, str, str, str]:
    if facts is None:
        return ("", "not run yet", "", "")
    size = "not recorded" if facts.size.folder is None else f"{facts.size.folder_bytes / 1e6:.1f} MB"
    return (f"{facts.perplexity.ratio:.2f}", f"{facts.train.seconds / 60:.0f} min", f"{facts.train.tokens:,}", size)


def _notes() -> Iterator[str]:
    yield (
        f"A recipe fits where it takes at most {USABLE:.0%} of the memory. Memory is what the recipe's header says, "
        "else the highest peak of the trainings of that recipe in [the grids](../recipes/README.md). Times are of "
        "training, on two cores; ratios are on held-out text of each recipe's own data, so those of two recipes with "
        "other texts compare roughly."
    )
