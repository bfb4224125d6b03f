"""What a tracker is told of a stage: closing figures by name, and where the stage's artefacts lie.

A figure has one name whichever stage measured it, so that a later measurement takes the place of an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bitnet_train.bench.facts import BenchFacts
from bitnet_train.config import Config
from bitnet_train.evaluate.measured import ScoredText
from bitnet_train.facts import Facts
from bitnet_train.importers.source import TINY, hub_id, looks_like_path, public_name
from bitnet_train.packed.reader import read_manifest
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.run.facts import ExportFacts, TrainFacts, ValidateFacts, WrittenFormat
from bitnet_train.run.result import ModelSize, RunFacts
from bitnet_train.train.trackers.tracker import Artefact, Figure

Figures = dict[str, Figure | None]
ORIGINAL, PACKED = "original", "packed"


def figures_of(facts: Facts) -> dict[str, Figure]:
    """Return what a stage came to, by name; nothing of a stage that no tracker is told of."""
    kind = next((kind for kind in _FIGURES if isinstance(facts, kind)), None)
    found = {} if kind is None else _FIGURES[kind](facts)
    return {name: value for name, value in found.items() if value is not None}


def artefacts_of(facts: Facts, config: Config) -> list[Artefact]:
    """Return what a stage read and wrote: training the original, an export the packed folder and other formats."""
    if isinstance(facts, TrainFacts):
        return [_original(config)]
    if not isinstance(facts, ExportFacts):
        return []
    written = ((facts.written,) if facts.written is not None else ()) + facts.also
    return [_packed(facts, config), *(_exported(each) for each in written)]


def _original(config: Config) -> Artefact:
    source = config.model.source
    elsewhere = f"bundled://{TINY}" if source == TINY else f"hf://{hub_id(source)}"
    place = source if looks_like_path(source) else elsewhere
    return Artefact(f"{ORIGINAL}-{Path(public_name(source)).name}", "model", place, is_input=True)


def _packed(facts: ExportFacts, config: Config) -> Artefact:
    folder = Path(facts.artefact).absolute()
    sealed: Figures = {"manifest_sha256": read_manifest(folder).sha256, **_sizes(facts.sizes)}
    known = {name: value for name, value in sealed.items() if value is not None}
    return Artefact(PACKED, "model", str(folder), made_from=public_name(config.model.source), facts=known)


def _exported(written: WrittenFormat) -> Artefact:
    known: dict[str, Figure] = {"format": written.format}
    if written.num_bytes is not None:
        known["size_bytes"] = written.num_bytes
    folder = Path(written.folder).absolute()
    return Artefact(folder.name, "model", str(folder), made_from=PACKED, facts=known)


def _of_train(facts: TrainFacts) -> Figures:
    result = facts.result
    held_out = {name: value for name, value in result.metrics.items() if name.startswith("val_")}
    return {
        "steps": result.steps,
        "train_tokens": result.tokens,
        "train_seconds": result.seconds,
        "train_tokens_per_s": result.tokens_per_s,
        "trainable_parameters": facts.trainable_parameters,
        "best_step": result.best_step,
        **held_out,
    }


def _of_export(facts: ExportFacts) -> Figures:
    return _sizes(facts.sizes)


def _sizes(size: ModelSize) -> Figures:
    ratio = size.original_bytes / size.folder_bytes if size.original_bytes else None
    return {
        "size_bytes": size.folder_bytes,
        "one_bit_bytes": size.one_bit_bytes,
        "original_bytes": size.original_bytes,
        "times_smaller": ratio,
    }


def _of_validate(facts: ValidateFacts) -> Figures:
    levels = {f"validate/{level.name}": level.passed for level in facts.levels}
    return {"verdict": _verdict(facts.passed), "passed": facts.passed, **levels}


def _of_evaluate(facts: EvaluateFacts) -> Figures:
    found: Figures = {"folder_bytes": facts.folder_bytes}
    for text in facts.texts:
        before = "" if text.held_out else f"texts/{text.name}/"
        found |= {f"{before}{name}": value for name, value in _of_text(text).items()}
    for asked in facts.choices:
        found |= {
            f"choices/{asked.name}/accuracy": asked.student.acc,
            f"choices/{asked.name}/accuracy_original": asked.teacher.acc if asked.teacher else None,
        }
    if facts.decode is not None:
        found["decode_tokens_per_s"] = facts.decode.tokens_per_s
    if facts.decode_original is not None:
        found["decode_tokens_per_s_original"] = facts.decode_original.tokens_per_s
    return found


def _of_text(text: ScoredText) -> Figures:
    compared = text.compared
    return {
        "perplexity": compared.student.perplexity,
        "perplexity_original": compared.teacher.perplexity if compared.teacher else None,
        "perplexity_ratio": compared.perplexity_ratio,
        "kl": compared.kl,
        "top1_agreement": compared.top1_agreement,
    }


def _of_bench(facts: BenchFacts) -> Figures:
    names = [f"bench/{row.runtime} {row.isa} {row.num_threads} threads" for row in facts.rows]
    found: Figures = {}
    for name, row in zip(names, facts.rows, strict=True):
        found |= {
            f"{name}/decode_tokens_per_s": row.decode_tokens_per_s,
            f"{name}/prefill_tokens_per_s": row.prefill_tokens_per_s,
        }
    return found


def _of_run(facts: RunFacts) -> Figures:
    scores, cost = facts.perplexity, facts.train
    return {
        "perplexity": scores.trained,
        "perplexity_original": scores.full_precision,
        "perplexity_swapped": scores.swapped,
        "perplexity_ratio": scores.ratio,
        "train_seconds_with_start": cost.seconds,
        "decode_tokens_per_s": facts.decode_tokens_per_s,
        "verdict": _verdict(facts.passed),
        "passed": facts.passed,
        **_sizes(facts.size),
    }


def _verdict(passed: bool) -> str:
    return "passed" if passed else "FAILED"


_FIGURES: Mapping[type[Facts], Callable[[Any], Figures]] = MappingProxyType(
    {
        TrainFacts: _of_train,
        ExportFacts: _of_export,
        ValidateFacts: _of_validate,
        EvaluateFacts: _of_evaluate,
        BenchFacts: _of_bench,
        RunFacts: _of_run,
    }
)
