"""Several runs in one document: figures side by side, curves over each other, texts, keys that differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bitnet_train.bench.facts import BenchFacts
from bitnet_train.evaluate.measured import ScoredText
from bitnet_train.report.curve import points_of
from bitnet_train.report.document import Document, Grid, Items, Paragraph, Section, SideBySide, Status, Table, Text
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.report.figures import UNKNOWN, cell, duration, number, percent, size, times
from bitnet_train.report.kept import KeptExport, KeptProof, KeptTraining
from bitnet_train.report.run_curves import compared_curves
from bitnet_train.report.run_files import RunFiles
from bitnet_train.report.run_sections import folder_bytes, word
from bitnet_train.report.run_status import last_step, status_of

_OWN = ("run", "recipe", "path")  # sections that differ between any two runs
_ABSENT = object()
Figure = Callable[[RunFiles], str]


def compare_document(runs: Sequence[RunFiles]) -> Document:
    """Return the document of two runs or more; they are called by what tells them apart."""
    names = names_of(runs)
    sections = (_missing(runs, names), _results(runs, names), _training(runs, names), _texts(runs, names))
    return Document(
        f"{len(runs)} runs compared",
        ", ".join(str(run.root) for run in runs),
        (),
        tuple(section for section in (*sections, _keys(runs, names)) if section is not None),
        f"Written {time.strftime('%Y-%m-%d %H:%M:%S')} from the files of the runs; "
        "`bitnet-train report RUN RUN` makes it anew.",
        Status(
            "compared",
            " and ".join(f"{name} ({status_of(run).word})" for name, run in zip(names, runs, strict=True)),
            "plain",
        ),
    )


def names_of(runs: Sequence[RunFiles]) -> list[str]:
    """Return a short name for each run, no two alike: its folder's, with as many folders above as it takes."""
    parts = [run.root.absolute().parts for run in runs]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{part[-1]} ({at})" for at, part in enumerate(parts, 1)]


def _missing(runs: Sequence[RunFiles], names: Sequence[str]) -> Section | None:
    faults = tuple(f"{name}: {fault}" for name, run in zip(names, runs, strict=True) for fault in run.faults)
    said = "Some files are damaged, half written, or of another stage. Nothing is shown in place of what they held:"
    return Section("What is missing", (Paragraph(said), Items(faults))) if faults else None


def _results(runs: Sequence[RunFiles], names: Sequence[str]) -> Section:
    rows = [(title, *(figure(run) for run in runs)) for title, figure in _figures(runs)]
    known = tuple(row for row in rows if any(value != UNKNOWN for value in row[1:]))
    return Section("Results", (Table(("", *names), known),))


def _figures(runs: Sequence[RunFiles]) -> Iterator[tuple[str, Figure]]:
    yield "stands", lambda run: status_of(run).word
    yield "steps", lambda run: cell(last_step(run), lambda step: number(step, 0))
    yield "tokens trained on", lambda run: _of(run, KeptTraining, lambda made: number(made.tokens, 0))
    yield "time of training", lambda run: _of(run, KeptTraining, lambda made: duration(made.seconds))
    yield "training, tokens/s", lambda run: _of(run, KeptTraining, lambda made: number(made.tokens_per_s, 0))
    for title, key in (("loss", "loss"), ("held-out perplexity", "val_perplexity"), ("held-out KL", "val_kl")):
        yield f"last {title}", _logged(key)
    for name in dict.fromkeys(text.name for run in runs for text in _scored(run)):
        yield from _text_figures(name)
    yield "size of the folder", lambda run: _of(run, KeptExport, lambda made: size(folder_bytes(made.sizes)))
    yield "validation", lambda run: _of(run, KeptProof, lambda made: "passed" if made.passed else "FAILED")
    yield (
        "decoding, tokens/s",
        lambda run: _of(
            run, EvaluateFacts, lambda made: cell(made.decode, lambda speed: number(speed.tokens_per_s, 1))
        ),
    )
    yield (
        "best of `bench`, tokens/s",
        lambda run: _of(
            run, BenchFacts, lambda made: number(max((row.decode_tokens_per_s for row in made.rows), default=None), 1)
        ),
    )


def _of(run: RunFiles, kind: type[Any], render: Callable[[Any], str]) -> str:
    return cell(run.get(kind), render)


def _logged(key: str) -> Figure:
    def last(run: RunFiles) -> str:
        points = points_of(run.metrics, key)
        return number(points[-1][1], 3) if points else UNKNOWN

    return last


def _scored(run: RunFiles) -> tuple[ScoredText, ...]:
    evaluated = run.get(EvaluateFacts)
    return evaluated.texts if evaluated is not None else ()


def _text_figures(name: str) -> Iterator[tuple[str, Figure]]:
    def of(render: Callable[[ScoredText], str]) -> Figure:
        return lambda run: next((render(text) for text in _scored(run) if text.name == name), UNKNOWN)

    yield f"{name}: perplexity, packed", of(lambda text: number(text.compared.student.perplexity))
    yield f"{name}: of the original's", of(lambda text: times(text.compared.perplexity_ratio))
    yield f"{name}: same likeliest token", of(lambda text: percent(text.compared.top1_agreement))


def _training(runs: Sequence[RunFiles], names: Sequence[str]) -> Section | None:
    curves = tuple(compared_curves(runs, names))
    return Section("Training", (Grid(curves),)) if curves else None


def _texts(runs: Sequence[RunFiles], names: Sequence[str]) -> Section | None:
    prompts = dict.fromkeys(sample.prompt for run in runs for sample in run.samples)
    blocks = tuple(
        SideBySide("The last text of each", prompt, tuple(_last_texts(runs, names, prompt))) for prompt in prompts
    )
    return Section("What they write", blocks) if blocks else None


def _last_texts(runs: Sequence[RunFiles], names: Sequence[str], prompt: str) -> Iterator[Text]:
    for name, run in zip(names, runs, strict=True):
        written = [sample for sample in run.samples if sample.prompt == prompt]
        if written:
            yield Text(name, written[-1].text, f"step {number(written[-1].step, 0)}")


def _keys(runs: Sequence[RunFiles], names: Sequence[str]) -> Section:
    unknown = [name for name, run in zip(names, runs, strict=True) if run.config is None]
    if unknown:
        said = f"The configuration of {', '.join(unknown)} cannot be read, so nothing is compared."
        return Section("Configuration", (Paragraph(said),))
    flat = [_flat(run.config or {}) for run in runs]
    keys = dict.fromkeys(key for values in flat for key in values)
    differing = [key for key in keys if any(values.get(key, _ABSENT) != flat[0].get(key, _ABSENT) for values in flat)]
    if not differing:
        return Section("Configuration", (Paragraph("All keys are the same."),))
    rows = tuple((key, *(_word(values.get(key, _ABSENT)) for values in flat)) for key in differing)
    said = f"{len(differing)} of {len(keys)} keys differ:" if len(differing) > 1 else "One key differs:"
    return Section("Configuration", (Paragraph(said), Table(("key", *names), rows, is_text=True)))


def _word(value: Any) -> str:
    return UNKNOWN if value is _ABSENT else word(value)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in content.items():
        full = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{full}.")
        elif full.partition(".")[0] not in _OWN:
            found[full] = value
    return found
