"""The files of a run as a report reads them: nothing that is damaged, half written or foreign ends it.

What cannot be read is left out and told by file and field (`RunFiles.faults`); a file that was never written is no
fault. Nothing here knows a default for a figure: what no run wrote is not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bitnet_train.bench.facts import BenchFacts
from bitnet_train.errors import FormatError
from bitnet_train.facts import Facts, Frame, read
from bitnet_train.json_text import parse_json
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.report.kept import (
    KeptBudget,
    KeptChanges,
    KeptConversion,
    KeptExport,
    KeptLayerFigures,
    KeptMachine,
    KeptPlan,
    KeptProof,
    KeptRun,
    KeptSample,
    KeptTraining,
)

METRICS_FILE, SAMPLES_FILE, LAYERS_FILE, TRACEBACK_FILE = (
    "metrics.jsonl",
    "samples.jsonl",
    "debug.jsonl",
    "traceback.txt",
)
"""As training writes them; their writers bring torch with them."""
_CHECKPOINT = "step-"
_MOST_BYTES = 64 * 1024 * 1024  # of one facts file; ours have some hundred kilobytes
_MOST_NUMBER, _LONG = 1e300, re.compile(r"\d{300}")
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
Line = TypeVar("Line")
Change = tuple[Any, Any]


@dataclass(frozen=True)
class Recipe:
    """What the configuration of a run is held against, in words, and the keys that differ: there and in the run."""

    name: str
    differs: Mapping[str, Change]


@dataclass(frozen=True)
class Worker:
    """A process that is about a run: its command, since when, and when it took the run, ns."""

    what: str
    since: str
    since_ns: int

    @property
    def verb(self) -> str:
        """The verb of the command."""
        return self.what.split()[-1] if self.what else ""


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds. `written_ns` says when each facts file was written."""

    root: Path
    config: Mapping[str, Any] | None = None
    recipe: Recipe | None = None
    worker: Worker | None = None
    metrics: tuple[Mapping[str, Any], ...] = ()
    samples: tuple[KeptSample, ...] = ()
    layers: tuple[KeptLayerFigures, ...] = ()
    frames: Mapping[str, Frame] = field(default_factory=dict)
    written_ns: Mapping[str, int] = field(default_factory=dict)
    checkpoints: tuple[int, ...] = ()
    error: str | None = None
    kept: Mapping[type[Facts], Facts] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The recipe and the folder, which tell runs apart."""
        return f"{self.recipe_name}, {self.root.name}"

    @property
    def recipe_name(self) -> str:
        """The recipe that the configuration names; else the folder's name."""
        named = (self.config or {}).get("recipe")
        return named if isinstance(named, str) and named not in ("", "none") else self.root.name

    def get(self, kind: type[Kept]) -> Kept | None:
        """Return the facts of a stage; None where it has not run, or its file cannot be read."""
        found = self.kept.get(kind)
        return found if isinstance(found, kind) else None


Kept = TypeVar("Kept", bound=Facts)
KINDS: tuple[type[Facts], ...] = (
    KeptConversion,
    KeptPlan,
    KeptMachine,
    KeptBudget,
    KeptChanges,
    KeptTraining,
    KeptExport,
    KeptProof,
    BenchFacts,
    EvaluateFacts,
    KeptRun,
)


def is_run(folder: Path) -> bool:
    """Whether a folder holds anything that a run writes."""
    names = ("config.yaml", METRICS_FILE, "facts", "checkpoints")
    return any((folder / name).exists() for name in names)


def read_run(
    root: Path,
    config: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    worker: Worker | None = None,
    faults: tuple[str, ...] = (),
) -> RunFiles:
    """Read the files of a run; `config` is what its config.yaml says, secrets taken out, `faults` what it lacks."""
    reader = _Reader(root, list(faults))
    kept: dict[type[Facts], Facts] = {}
    frames: dict[str, Frame] = {}
    times: dict[str, int] = {}
    for path in sorted((root / "facts").glob("*.json")):
        values = reader.facts(path)
        if values is None:
            continue
        times[path.stem] = path.stat().st_mtime_ns
        kind = next((kind for kind in KINDS if kind.stage == path.stem), Facts)
        found = reader.typed(kind, values, path)
        if found is not None and found.frame is not None:
            frames[path.stem] = found.frame
        if found is not None and kind is not Facts:
            kept[kind] = found
    metrics = tuple(row for row in reader.lines(METRICS_FILE, dict))
    return RunFiles(
        root=root,
        config=config,
        recipe=recipe,
        worker=worker,
        metrics=metrics,
        samples=_last_of_step(reader.lines(SAMPLES_FILE, lambda row: read(KeptSample, row, SAMPLES_FILE))),
        layers=tuple(reader.lines(LAYERS_FILE, KeptLayerFigures.of)),
        frames=frames,
        written_ns=times,
        checkpoints=_checkpoints(root / "checkpoints"),
        error=_error(root / TRACEBACK_FILE, max(times.values(), default=0)),
        kept=kept,
        faults=tuple(reader.faults),
    )


def _last_of_step(samples: Iterator[KeptSample]) -> tuple[KeptSample, ...]:
    found = {sample.step: sample for sample in samples}
    return tuple(found[step] for step in sorted(found))


def _checkpoints(folder: Path) -> tuple[int, ...]:
    names = [path.parent.name.removeprefix(_CHECKPOINT) for path in folder.glob(f"{_CHECKPOINT}*/manifest.json")]
    return tuple(sorted(int(name) for name in names if name.isdecimal()))


def _error(path: Path, newest_ns: int) -> str | None:
    """Return the last line of the traceback that a verb left, where no stage has ended since."""
    try:
        if path.stat().st_mtime_ns < newest_ns:
            return None
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return None
    return lines[-1] if lines else None


@dataclass(frozen=True)
class _Reader:
    root: Path
    faults: list[str]

    def facts(self, path: Path) -> Mapping[str, Any] | None:
        """Return what a facts file says; None, having told it, where that is no facts of its stage."""
        name = f"facts/{path.name}"
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError(f"it has {path.stat().st_size:,} bytes")
            values = _parsed(path.read_text(encoding="utf-8"))
        except _UNREADABLE as error:
            self.faults.append(f"{name} is not shown: it cannot be read ({_brief(error)}).{_again(path.stem)}")
            return None
        if not isinstance(values, Mapping):
            self.faults.append(f"{name} is not shown: it holds no object.{_again(path.stem)}")
            return None
        if values.get("stage", path.stem) != path.stem:
            said = _brief(repr(values.get("stage")))
            self.faults.append(f"{name} is not shown: it says that it is of the stage {said}.{_again(path.stem)}")
            return None
        return values

    def typed(self, kind: type[Kept], values: Mapping[str, Any], path: Path) -> Kept | None:
        name = f"facts/{path.name}"
        try:
            return kind.from_dict(values, name)
        except FormatError as error:
            self.faults.append(f"{name} is not shown: {_brief(error)}{_again(path.stem)}")
        except _UNREADABLE as error:
            told = f"{type(error).__name__}: {_brief(error)}"
            self.faults.append(f"{name} is not shown: it is not as its stage writes it ({told}).{_again(path.stem)}")
        return None

    def lines(self, name: str, made: Callable[[Any], Line]) -> Iterator[Line]:
        """Yield each line of a file; one that a kill cut short is left out, and others that cannot be read are told."""
        path, wrong, first = self.root / name, 0, ""
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        yield made(_object(_parsed(line)))
                    except (FormatError, *_UNREADABLE) as error:
                        if line.endswith("\n"):  # else it is being written, or was when the process died
                            wrong, first = wrong + 1, first or f"line {number}: {_brief(error)}"
        except FileNotFoundError:
            return
        except OSError as error:
            self.faults.append(f"{name} is not shown: it cannot be read ({_brief(error)}).")
            return
        if wrong:
            self.faults.append(
                f"{name}: {wrong} {'line is' if wrong == 1 else 'lines are'} left out, the first: {first}"
            )


def _parsed(text: str) -> Any:
    """Return what JSON says; ValueError for what is none, and for an integer that is larger than every float."""
    value = parse_json(text)
    if _LONG.search(text):
        _check_numbers(value)
    return value


def _check_numbers(value: Any) -> None:
    if isinstance(value, Mapping):
        for item in value.values():
            _check_numbers(item)
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item)
    elif type(value) is int and abs(value) > _MOST_NUMBER:
        raise ValueError("a number has over 300 digits")


def _object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _again(stage: str) -> str:
    verbs = ("convert", "train", "merge", "export", "validate", "evaluate", "bench", "sensitivity", "reconstruct")
    return f" `bitnet-train {stage} RUN` writes it anew." if stage in verbs else ""


def _brief(error: object) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."
