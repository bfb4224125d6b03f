"""`bitnet-train validate`: the proof that a packed folder, and each export of it, computes what was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bitnet_train.config import Config
from bitnet_train.progress import open_console
from bitnet_train.run import assembly
from bitnet_train.run.directory import is_model, packed_folder
from bitnet_train.run.facts import ValidateFacts
from bitnet_train.run.session import Session
from bitnet_train.run.tracked import tell
from bitnet_train.validation.validate import validate as validate_packed
from bitnet_train.validation.validate_export import validate_export


def validate(config: Config, session: Session | None = None) -> ValidateFacts:
    """Prove at six levels that the packed folder computes what was trained, and that every export holds its weights."""
    assembly.prepare_process(config)
    if is_model(config):
        return _validate_export(config, Path(config.path or ""), config.validate.against)
    console = open_console(config.quiet)
    artefact, directory = packed_folder(config)
    against = config.validate.against
    if against is None and directory is not None and directory.merged.is_dir():
        against = str(directory.merged)
    report = validate_packed(
        artefact,
        against=against,
        num_prompts=config.validate.num_prompts,
        new_tokens=config.validate.new_tokens,
        num_tokens=config.validate.num_tokens,
        all_isas=config.validate.all_isas,
        native_tokens=config.validate.native_tokens,
        progress=lambda level: console.print(f"validating: {level}"),
    )
    console.print(report.render())
    folders = directory.written_exports() if directory is not None else []
    exports = tuple(_validate_export(config, folder, str(artefact)) for folder in folders)
    passed = report.passed and all(export.passed for export in exports)
    facts = replace(ValidateFacts.from_dict(report.to_dict()), exports=exports, passed=passed)
    tell(facts, config, directory, session)
    return directory.keep(facts) if directory is not None else facts


def _validate_export(config: Config, path: Path, against: str | None) -> ValidateFacts:
    console = open_console(config.quiet)
    report = validate_export(path, against=against, progress=lambda level: console.print(f"validating: {level}"))
    console.print(report.render())
    return ValidateFacts.from_dict(report.to_dict())
