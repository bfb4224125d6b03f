"""The files of one run as a document.

| section              | from                                                                    |
|----------------------|-------------------------------------------------------------------------|
| What is missing      | every file that is there and cannot be read                             |
| Quality              | facts/evaluate.json; without it facts/convert.json, facts/train.json    |
| Training             | metrics.jsonl, debug.jsonl                                              |
| What it writes       | samples.jsonl, facts/run.json                                           |
| Size                 | facts/export.json                                                       |
| Size and quality     | facts/evaluate.json, where `evaluate.frontier` named a file             |
| Validation           | facts/validate.json                                                     |
| Speed                | facts/bench.json                                                        |
| Layers, Inside them  | facts/plan.json; debug.jsonl                                            |
| a section a file     | facts/evaluate.json                                                     |
| Configuration        | config.yaml beside its recipe, facts/continued.json                     |
| Machine and versions | the frame of every facts file                                           |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from bitnet_train.report.curve import points_of
from bitnet_train.report.document import Document, Grid, Paragraph, Section, Tile
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.report.figures import duration, number, size, times
from bitnet_train.report.frontier_section import frontier_sections
from bitnet_train.report.kept import KeptExport, KeptProof, KeptRun, KeptTraining
from bitnet_train.report.layer_sections import inside_section, plan_section
from bitnet_train.report.overview import file_sections, overview_section, quality_tiles
from bitnet_train.report.run_curves import curves_of
from bitnet_train.report.run_files import RunFiles
from bitnet_train.report.run_sections import (
    config_section,
    fault_section,
    folder_bytes,
    machine_section,
    perplexity_section,
    proof_section,
    samples_section,
    size_section,
    speed_section,
)
from bitnet_train.report.run_status import last_step, planned_steps, status_of

_OF_SPEED = "tokens_per_s"


def run_document(run: RunFiles) -> Document:
    """Arrange what a run wrote: where it stands, figures to see first, then a section for each part that is known."""
    whole = run.get(KeptRun)
    made = f"{whole.weight}, activations {whole.activation}. " if whole is not None else ""
    sections = tuple(section for make in _SECTIONS for section in make(run) if section.blocks)
    return Document(
        run.recipe_name,
        f"{made}{run.root}",
        _tiles(run),
        sections,
        f"Written {time.strftime('%Y-%m-%d %H:%M:%S')} from the files of the run; `bitnet-train report RUN` makes it "
        "anew.",
        status_of(run),
    )


def _optional(make: Callable[[RunFiles], Section | None]) -> Callable[[RunFiles], Iterator[Section]]:
    def made(run: RunFiles) -> Iterator[Section]:
        section = make(run)
        if section is not None:
            yield section

    return made


def _quality(run: RunFiles) -> Iterator[Section]:
    evaluated = run.get(EvaluateFacts)
    if evaluated is not None:
        yield overview_section(evaluated, "Quality")


def _training(run: RunFiles) -> Section | None:
    curves = curves_of(run)
    if not curves:
        return None
    trained = run.get(KeptTraining)
    if trained is None:
        return Section("Training", (Grid(curves),))
    said = (
        f"{number(trained.steps, 0)} steps, {number(trained.tokens, 0)} tokens in {duration(trained.seconds)}; "
        f"{number(trained.trainable_parameters, 0)} of {number(trained.parameters, 0)} parameters train."
    )
    return Section("Training", (Paragraph(said), Grid(curves)))


def _frontier(run: RunFiles) -> Iterator[Section]:
    evaluated = run.get(EvaluateFacts)
    if evaluated is not None:
        yield from frontier_sections(evaluated)


def _files(run: RunFiles) -> Iterator[Section]:
    evaluated = run.get(EvaluateFacts)
    if evaluated is not None:
        yield from file_sections(evaluated)


_SECTIONS: tuple[Callable[[RunFiles], Iterator[Section]], ...] = (
    _optional(fault_section),
    _quality,
    _optional(perplexity_section),
    _optional(_training),
    _optional(samples_section),
    _optional(size_section),
    _frontier,
    _optional(proof_section),
    _optional(speed_section),
    _optional(plan_section),
    _optional(inside_section),
    _files,
    _optional(config_section),
    _optional(machine_section),
)


def _tiles(run: RunFiles) -> tuple[Tile, ...]:
    evaluated, exported, proof = run.get(EvaluateFacts), run.get(KeptExport), run.get(KeptProof)
    tiles = list(quality_tiles(evaluated)) if evaluated is not None else list(_live_tiles(run))
    if exported is not None:
        own, original = folder_bytes(exported.sizes), exported.sizes.original_bytes
        note = f"{times(original / own)} smaller than the original's file" if original and own else "packed folder"
        tiles.append(Tile("size", size(own), note))
    if proof is not None:
        verdict = "passed" if proof.passed else "FAILED"
        tiles.append(Tile("validation", verdict, f"{len(proof.levels)} level{'' if len(proof.levels) == 1 else 's'}"))
    tiles += _training_tiles(run)
    return tuple(tiles)


def _live_tiles(run: RunFiles) -> Iterator[Tile]:
    held_out, loss = points_of(run.metrics, "val_perplexity"), points_of(run.metrics, "loss")
    if held_out:
        step, perplexity = held_out[-1]
        yield Tile("held-out perplexity", number(perplexity), f"step {number(step, 0)}")
    if loss:
        yield Tile("loss", number(loss[-1][1], 3), f"step {number(loss[-1][0], 0)}")


def _training_tiles(run: RunFiles) -> Iterator[Tile]:
    trained, reached, planned = run.get(KeptTraining), last_step(run), planned_steps(run)
    if reached is not None:
        of = f" / {number(planned, 0)}" if planned is not None and planned != reached else ""
        note = f"{number(trained.tokens, 0)} tokens in {duration(trained.seconds)}" if trained is not None else "so far"
        yield Tile("steps", f"{number(reached, 0)}{of}", note)
    speed = points_of(run.metrics, _OF_SPEED)
    if trained is not None:
        yield Tile("training", f"{number(trained.tokens_per_s, 0)} tok/s", "mean of all steps")
    elif speed:
        yield Tile("training", f"{number(speed[-1][1], 0)} tok/s", f"step {number(speed[-1][0], 0)}")
