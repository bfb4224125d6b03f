"""What a model card on the hub says of a run: figures of its facts, and the curve of its training.

Figures are those of the very weights that go out: facts of before the model was packed anew are left out, unless the
packed tensors came out the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from bitnet_train.errors import BitnetTrainError
from bitnet_train.facts import Facts
from bitnet_train.json_text import parse_json
from bitnet_train.packed.manifest import Manifest
from bitnet_train.packed.names import MANIFEST_NAME
from bitnet_train.packed.reader import read_manifest
from bitnet_train.report.card_figures import CURVE_FILE, CardFigures, eval_results, render_card_figures
from bitnet_train.report.curve import render_curve
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import ValidateFacts
from bitnet_train.run.result import ModelSize
from bitnet_train.train.trackers.tracking import METRICS_FILE


@dataclass(frozen=True)
class Packed:
    """A packed folder at one moment: its manifest, and since when it holds these tensors."""

    manifest: Manifest
    since_ns: int

    @classmethod
    def at(cls, folder: Path, before: Packed | None = None) -> Packed | None:
        """Return what lies there, or None; where it holds the tensors of `before`, it has done so since then."""
        try:
            manifest = read_manifest(folder)
        except BitnetTrainError:
            return None
        if before is not None and before.manifest.tensors == manifest.tensors:
            return cls(manifest, before.since_ns)
        return cls(manifest, (folder / MANIFEST_NAME).stat().st_mtime_ns)


@dataclass(frozen=True)
class HubCard:
    """The section of the card, the files beside it by name, and the figures again for the hub to read."""

    figures: str
    further: dict[str, str]
    results: list[EvalResult]


def hub_card(directory: RunDirectory | None, packed: Packed, size: ModelSize) -> HubCard:
    """Return what is added to the card."""
    curve = None if directory is None else render_curve(read_metrics(directory.root / METRICS_FILE))
    validated, evaluated = _kept(directory, ValidateFacts, packed), _kept(directory, EvaluateFacts, packed)
    figures = CardFigures(
        folder_bytes=size.folder_bytes,
        original_bytes=size.original_bytes,
        bits_per_weight=8 * size.one_bit_bytes / weights if (weights := size.layers.fp16_bytes / 2) else None,
        evaluated=evaluated,
        verdict=None if validated is None else _verdict(validated),
        has_curve=curve is not None,
    )
    further = {} if curve is None else {CURVE_FILE: curve}
    return HubCard(render_card_figures(figures), further, [] if evaluated is None else eval_results(evaluated))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return what a run logged, a mapping a line; lines that a kill cut short are left out."""
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        return rows
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = parse_json(line)
            except ValueError:
                continue
            rows += [row] if isinstance(row, dict) else []
    return rows


def _kept(directory: RunDirectory | None, kind: type[Any], packed: Packed) -> Any:
    """Return the facts of a stage that looked at these tensors."""
    assert issubclass(kind, Facts)
    if directory is None:
        return None
    path = directory.root / "facts" / f"{kind.stage}.json"
    return directory.kept(kind) if path.is_file() and path.stat().st_mtime_ns >= packed.since_ns else None


def _verdict(validated: ValidateFacts) -> str:
    levels = len(validated.levels)
    return f"passed, {levels} levels" if validated.passed else "FAILED"
