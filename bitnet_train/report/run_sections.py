"""The sections of a run's report that are tables and texts: one function each, None where nothing is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from bitnet_train.bench.facts import BenchFacts
from bitnet_train.bench.row import Row
from bitnet_train.facts import Frame
from bitnet_train.report.document import (
    Bar,
    Bars,
    Block,
    Folded,
    Items,
    Paragraph,
    Section,
    SideBySide,
    Table,
    Text,
)
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.report.figures import UNKNOWN, cell, duration, number, size, times
from bitnet_train.report.kept import (
    KeptChanges,
    KeptConversion,
    KeptExport,
    KeptLevel,
    KeptMachine,
    KeptProof,
    KeptRun,
    KeptSample,
    KeptSize,
    KeptTraining,
)
from bitnet_train.report.run_files import Change, RunFiles
from bitnet_train.report.sections import SERIES

STAGES = ("train", "merge", "export", "validate", "evaluate", "bench")
"""What may be done with a run, in order."""
_WITHIN_TRAINING = ("plan", "planes", "machine", "teacher", "budget", "start", "continued")
_LEVELS = {
    "bytes": "the folder holds what its manifest says",
    "integers": "codes and scales are those that were trained",
    "layer": "each layer computes as the trained one",
    "logits": "the model gives the logits of the trained one",
    "tokens_and_perplexity": "it writes the same tokens and has the same perplexity",
    "native": "the native runtime does so too",
}


def fault_section(run: RunFiles) -> Section | None:
    """What could not be read, file by file."""
    if not run.faults:
        return None
    said = (
        "Some files of this run are damaged, half written, or not its own. Nothing is shown in place of what they held:"
    )
    return Section("What is missing", (Paragraph(said), Items(run.faults)))


def perplexity_section(run: RunFiles) -> Section | None:
    """Held-out perplexity before and after, of a run that was not evaluated."""
    if run.get(EvaluateFacts) is not None:
        return None
    converted, trained = run.get(KeptConversion), run.get(KeptTraining)
    rows = []
    if converted is not None:
        before = cell(converted.full_precision, lambda measured: number(measured.perplexity))
        rows += [("original", before), ("layers just swapped", number(converted.swapped.perplexity))]
    if trained is not None and (after := trained.metrics.get("val_perplexity")) is not None:
        rows.append((f"trained, step {number(trained.steps, 0)}", number(after)))
    said = "Not evaluated yet: `bitnet-train evaluate RUN` sets the packed model beside its original."
    return Section("Quality", (Paragraph(said), Table(("", "held-out perplexity"), tuple(rows)))) if rows else None


def samples_section(run: RunFiles) -> Section | None:
    """What the model in training wrote, step by step, and at the end both models beside each other."""
    blocks: list[Block] = []
    for prompt in dict.fromkeys(sample.prompt for sample in run.samples):
        columns = tuple(
            Text(f"step {number(sample.step, 0)}", sample.text, _about(sample))
            for sample in run.samples
            if sample.prompt == prompt
        )
        blocks.append(SideBySide("In training, greedily", prompt, columns))
    whole = run.get(KeptRun)
    if whole is not None:
        both, written = whole.continued, whole.continued.continuations
        columns = (Text(SERIES[0], written.full_precision), Text(SERIES[1], written.packed))
        blocks.append(SideBySide("At the end, beside the original", both.prompt, columns))
    return Section("What it writes", tuple(blocks)) if blocks else None


def _about(sample: KeptSample) -> str:
    return duration(sample.seconds) + ("" if sample.text.strip() else ", nothing but white space")


def size_section(run: RunFiles) -> Section | None:
    """Bytes of the packed folder beside the original's file, and of what else was written."""
    exported = run.get(KeptExport)
    if exported is None:
        return None
    sizes = exported.sizes
    rows = [row for row in _size_rows(sizes) if row[1] != UNKNOWN]
    blocks: list[Block] = [Table(("", "size", "smaller than the original"), tuple(rows))]
    if sizes.original_bytes:
        own = (("packed folder", folder_bytes(sizes)), ("1-bit layers", _one_bit(sizes)))
        bars = (
            Bar("original", "", (1.0, None)),
            *(Bar(name, "", (None, num_bytes / sizes.original_bytes)) for name, num_bytes in own),
        )
        blocks.append(Bars("Share of the original's file", SERIES, bars))
    also = [each for each in (exported.written, *exported.also) if each is not None]
    if also:
        rows = [(each.format, cell(each.num_bytes, size), each.folder) for each in also]
        blocks.append(Table(("also written as", "size", "where"), tuple(rows), is_text=True))
    return Section("Size", tuple(blocks))


def folder_bytes(sizes: KeptSize) -> int:
    """Return the bytes of the whole folder."""
    return sizes.total_bytes if sizes.folder_bytes is None else sizes.folder_bytes


def _one_bit(sizes: KeptSize) -> int:
    return sizes.packed_bytes + sizes.scale_bytes


def _size_rows(sizes: KeptSize) -> Iterator[tuple[str, ...]]:
    original = sizes.original_bytes
    yield "the original's file", cell(original, size), ""
    yield "packed folder", size(folder_bytes(sizes)), _smaller(original, folder_bytes(sizes))
    yield "its weights", cell(sizes.weights_bytes, size), _smaller(original, sizes.weights_bytes)
    yield "1-bit layers alone, with their scales", size(_one_bit(sizes)), ""
    yield "the same layers in fp16", size(sizes.fp16_bytes), ""


def _smaller(original: int | None, own: int | None) -> str:
    return UNKNOWN if not original or not own else times(original / own)


def proof_section(run: RunFiles) -> Section | None:
    """The verdict level by level, and on every export."""
    proof = run.get(KeptProof)
    if proof is None:
        return None
    return Section("Validation", tuple(_proof_blocks(proof)))


def _proof_blocks(proof: KeptProof) -> Iterator[Block]:
    said = "valid" if proof.passed else "NOT VALID"
    yield Paragraph(f"{proof.path} is {said}, compared with {proof.compared_with}.")
    rows = tuple((level.name, _verdict(level.passed), _compared(level), _figures(level)) for level in proof.levels)
    yield Table(("level", "verdict", "what was compared", "figures"), rows, is_text=True)
    for export in proof.exports or ():
        yield from _proof_blocks(export)


def _verdict(passed: bool) -> str:
    return "passed" if passed else "FAILED"


def _compared(level: KeptLevel) -> str:
    meaning = _LEVELS.get(level.name, "")
    return f"{meaning}: {level.detail}" if meaning else level.detail


def _figures(level: KeptLevel) -> str:
    figures = [f"{name} {f'{value:g}' if isinstance(value, float) else value}" for name, value in level.figures.items()]
    failure = [f"first difference: {level.first_failure}"] if level.first_failure else []
    return ", ".join([*figures, *failure])


def speed_section(run: RunFiles) -> Section | None:
    """What `bench` timed, a row a runtime, instruction set and number of threads."""
    bench = run.get(BenchFacts)
    if bench is None:
        return None
    work = bench.workload
    said = (
        f"{work.prompt_tokens} tokens prefilled, {work.new_tokens} decoded; medians of {work.repeats}. "
        "Memory is what loading and running added to the process."
    )
    header = ("runtime", "instruction set", "threads", "prefill tok/s", "decode tok/s", "memory")
    return Section("Speed", (Paragraph(said), Table(header, tuple(_bench_row(row) for row in bench.rows))))


def _bench_row(row: Row) -> tuple[str, ...]:
    return (
        row.runtime,
        row.isa,
        str(row.num_threads),
        number(row.prefill_tokens_per_s, 1),
        number(row.decode_tokens_per_s, 1),
        cell(row.memory.peak, size),
    )


def config_section(run: RunFiles) -> Section | None:
    """What differs from the recipe, what was changed on the way, and the whole configuration."""
    if run.config is None:
        return None
    blocks: list[Block] = []
    if run.recipe is not None:
        blocks += _differences(run.recipe.name, run.recipe.differs)
    changes = run.get(KeptChanges)
    if changes is not None and changes.changes:
        rows = tuple(
            (number(change.step, 0), key, word(before), word(now))
            for change in changes.changes
            for key, (before, now) in change.changed.items()
        )
        blocks.append(Paragraph("Changed on the way, each from a step on:"))
        blocks.append(Table(("step", "key", "before", "from there on"), rows, is_text=True))
    text = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True, width=110)
    blocks.append(Folded("The whole configuration", text))
    return Section("Configuration", tuple(blocks))


def _differences(name: str, differs: Mapping[str, Change]) -> Iterator[Block]:
    if not differs:
        yield Paragraph(f"As {name} has it: no key differs.")
        return
    keys = "1 key differs" if len(differs) == 1 else f"{len(differs)} keys differ"
    yield Paragraph(f"{keys} from {name}:")
    rows = tuple((key, word(before), word(now)) for key, (before, now) in differs.items())
    yield Table(("key", "there", "in this run"), rows, is_text=True)


def word(value: Any) -> str:
    """Return a value as a configuration file has it."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump([value], default_flow_style=True, width=10**6, allow_unicode=True).strip()[1:-1]


def machine_section(run: RunFiles) -> Section | None:
    """What each stage ran on and with, and when it ended; what has not run yet."""
    blocks: list[Block] = []
    machine, trained, whole = run.get(KeptMachine), run.get(KeptTraining), run.get(KeptRun)
    if machine is not None:
        blocks.append(Paragraph(f"Arithmetic of training: {machine.why}; {machine.num_threads} threads."))
    if trained is not None:
        data = trained.data
        where = f" ({data.path})" if data.path else ""
        blocks.append(
            Paragraph(
                f"Text: {data.source}{where}, {data.train_rows:,} rows of {data.context_tokens} tokens to train on, "
                f"{data.validation_rows:,} held out."
            )
        )
    seconds = (whole.stage_seconds if whole is not None else None) or {}
    ended = sorted(run.frames.items(), key=lambda item: item[1].finished)
    rows = tuple(
        (stage, frame.finished.replace("T", " "), duration(seconds.get(stage)))
        for stage, frame in ended
        if stage not in _WITHIN_TRAINING
    )
    if rows:
        blocks.append(Table(("stage", "ended", "took"), rows))
    blocks += _versions(run.frames)
    missing = [stage for stage in STAGES if stage not in run.frames]
    if missing:
        blocks.append(Paragraph(f"Not there: {', '.join(missing)}. `bitnet-train VERB RUN` does each."))
    return Section("Machine and versions", tuple(blocks)) if blocks else None


def _versions(frames: Mapping[str, Frame]) -> Iterator[Block]:
    """Yield the versions and the machine of the stages: one column, or as many as there were different ones."""
    found: list[tuple[list[str], Mapping[str, Any]]] = []
    for stage, frame in sorted(frames.items(), key=lambda item: item[1].finished):
        alike = next((stages for stages, made_by in found if made_by == frame.made_by), None)
        if alike is None:
            found.append(([stage], frame.made_by))
        else:
            alike.append(stage)
    names = dict.fromkeys(name for _, made_by in found for name in made_by)
    if names:
        header = ("", *(", ".join(stages) if len(found) > 1 else "all stages" for stages, _ in found))
        rows = tuple((name, *(word(made_by.get(name, UNKNOWN)) for _, made_by in found)) for name in names)
        yield Table(header, rows)
