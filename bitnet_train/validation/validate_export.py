"""Hold an export, or a foreign file, against the packed folder it should equal: weight by weight, bit by bit.

    files      every byte is the one that was written (`export.json`); a foreign file has no record, and that is said
    weights    each weight decoded from the file is the packed folder's, bit for bit; the first that differs is named

What other programs then compute from these weights is theirs: they quantise activations in their own way, or not at
all. `docs/gguf.md` has the measured difference for llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from bitnet_train.errors import BitnetTrainError, FormatError
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.record import ExportRecord, read_record, verify_export
from bitnet_train.exporters.registry import Exporter, exporter_of
from bitnet_train.gguf.magic import is_gguf
from bitnet_train.json_text import parse_json
from bitnet_train.packed.names import EXPORT_NAME
from bitnet_train.packed.source import PackedSource, open_packed
from bitnet_train.progress import track
from bitnet_train.validation.differences import difference
from bitnet_train.validation.report import Level, ValidationReport

EXPORT_LEVELS = ("files", "weights")
_NOTHING = "nothing: no packed folder was given (`validate.against=FOLDER`)"


def validate_export(
    path: str | Path,
    *,
    against: str | Path | None = None,
    progress: Callable[[str], object] | None = None,
) -> ValidationReport:
    """Check an export or a foreign model at `path`; nothing is raised for one that fails.

    Parameters
    ----------
    path
        A folder that `export_as` wrote, a GGUF file, or a Hugging Face folder.
    against
        The packed folder whose weights it should hold. None: only that every weight can be read and is finite.
    progress
        Called with the name of each level when it starts.

    Raises
    ------
    FormatError
        When `path` is nothing that can be validated, or `against` is no packed folder.
    """
    announce = progress or (lambda _name: None)
    target = Path(path)
    exporter = exporter_of(format_of(target))
    announce(EXPORT_LEVELS[0])
    levels = [_check_files(target)]
    announce(EXPORT_LEVELS[1])
    with ExitStack() as until_done:
        source = until_done.enter_context(open_packed(against)) if against is not None else None
        levels.append(_check_weights(exporter, target, source))
    return ValidationReport(str(path), _NOTHING if against is None else str(against), tuple(levels), EXPORT_LEVELS)


def format_of(path: Path) -> str:
    """Return the row of the exporter table that `path` belongs to; FormatError when none does."""
    if (path / EXPORT_NAME).is_file():
        return read_record(path).format
    if is_gguf(path) and path.is_file():
        return "gguf"
    if (path / "config.json").is_file():
        return "hf_bitnet" if _quant_method(path / "config.json") == "bitnet" else "plain"
    raise FormatError(
        f"{path} is nothing that can be validated. Give a run, a packed folder, an export, a *.gguf file, or a Hugging "
        "Face folder."
    )


def _quant_method(config: Path) -> str | None:
    try:
        settings = parse_json(config.read_text(encoding="utf-8")).get("quantization_config") or {}
        return settings.get("quant_method")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"{config} cannot be read: {error}. Copy the folder again.") from error


def _check_files(target: Path) -> Level:
    if not (target / EXPORT_NAME).is_file():
        return Level("files", f"nothing: a foreign model has no {EXPORT_NAME}", {})
    try:
        record = verify_export(target)
    except FormatError as error:
        return Level("files", f"files with the hashes in {EXPORT_NAME}", {}, str(error))
    return Level("files", f"files with the hashes in {EXPORT_NAME}", {"files": len(record.files)})


def _check_weights(exporter: Exporter, target: Path, source: PackedSource | None) -> Level:
    compared = "every weight of the file, decoded" + (", with the packed folder, bit for bit" if source else "")
    seen: set[str] = set()
    try:
        options = _options(target)
        failure = next(_differences(exporter, target, source, options, seen), None)
        if failure is None and source is not None:
            own = (name for name in source.weight_names() if not source.is_tied(name))  # a reader ties them
            lost = [name for name in own if _key(name) not in seen]
            failure = f"{lost[0]}: the file does not hold it" if lost else None
    except (BitnetTrainError, OSError) as error:
        failure = str(error)
    return Level("weights", compared, {"weights": len(seen)}, failure)


def _differences(
    exporter: Exporter, target: Path, source: PackedSource | None, options: ExportOptions, seen: set[str]
) -> Iterator[str]:
    known = [] if source is None else [*source.weight_names(), *source.tables, *source.tied]
    names = {_key(name): name for name in known}
    total = len(names) or None
    for name, values in track(exporter.read_back(target), "Validating weights", total):
        seen.add(_key(name))
        if source is None:
            problem = None if torch.isfinite(values).all() else "a value is not finite"
        elif _key(name) not in names:
            problem = "the packed folder does not hold it"
        else:
            problem = difference(values, _contiguous(exporter.expected(source, names[_key(name)], options)))
        if problem:
            yield f"{name}: {problem}"


def _options(target: Path) -> ExportOptions:
    record: ExportRecord | None = read_record(target) if (target / EXPORT_NAME).is_file() else None
    return ExportOptions() if record is None else ExportOptions(**record.options)


def _key(name: str) -> str:
    return name.removesuffix(".weight")


def _contiguous(values: Tensor) -> Tensor:
    return values.float().contiguous()
