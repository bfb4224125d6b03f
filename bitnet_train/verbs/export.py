"""`bitnet-train export`: write a model out, in any format.

Every format is written from the packed folder, so a run is packed first where it is not yet. What is written lies in
the run directory (`exports/FORMAT`), beside the packed folder where that has no run, or where `export.out` says. An
adapter outside the quantiser cannot be merged: such a run packs its base, which training left as it was, and the
adapter goes out beside it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.config import Config
from bitnet_train.errors import ConfigError
from bitnet_train.exporters.adapter import write_adapter
from bitnet_train.exporters.hub import check_hub_name, push_folder
from bitnet_train.exporters.packed import export_packed
from bitnet_train.exporters.registry import export_as
from bitnet_train.importers.licence import licence_of
from bitnet_train.importers.load import load_pretrained
from bitnet_train.importers.source import public_name
from bitnet_train.model.converted import load_converted
from bitnet_train.packed.card_data import LICENCE_FACT
from bitnet_train.packed.manifest import Manifest
from bitnet_train.packed.names import MANIFEST_NAME
from bitnet_train.packed.reader import read_manifest
from bitnet_train.packed.sizes import render_sizes
from bitnet_train.progress import open_console
from bitnet_train.run import assembly
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.exports import ADAPTER, OUTSIDE, PACKED, require_adapter
from bitnet_train.run.facts import ExportFacts, MergeFacts, ReconstructFacts, TrainFacts, WrittenFormat
from bitnet_train.run.folder_size import folder_size, spoken, warning
from bitnet_train.run.hub_card import Packed, hub_card
from bitnet_train.run.result import ModelSize
from bitnet_train.run.session import Session
from bitnet_train.run.tracked import tell


def export(config: Config, session: Session | None = None) -> ExportFacts:
    """Pack the merged model of a run, and write it (or a packed folder) in the format that was asked for."""
    assembly.prepare_process(config)
    _check_asked(config)
    before = _packed_before(config)
    packed, directory = _packed_folder(config)
    size = ModelSize(read_manifest(packed).sizes, folder_size(config, packed) if directory else None)
    folder, written = packed, None
    if config.export.format == ADAPTER:
        assert directory is not None, "checked above"
        folder, written = _write_adapter(config, directory)
    elif config.export.format != PACKED:
        folder, written = _write_format(config, packed, _target(config, packed, directory), config.export.format)
    further = [name for name in dict.fromkeys(config.export.also) if name != config.export.format]
    targets = {name: _usual_target(config, name, packed, directory) for name in further}
    also = tuple(_write_format(config, packed, targets[name], name)[1] for name in further)
    facts = ExportFacts(str(packed), size, written, also)
    if config.export.push_to_hub is not None:
        now = Packed.at(packed, before)
        assert now is not None, "it was read above"
        card = hub_card(directory, now, size)
        address = push_folder(
            folder,
            config.export.push_to_hub,
            private=config.export.hub_private,
            figures=card.figures,
            further=card.further,
            results=card.results,
        )
        facts = replace(facts, hub=address)
        _console(config).print(f"Uploaded to {facts.hub}")
    tell(facts, config, directory, session)
    return directory.keep(facts) if directory is not None else facts


def _check_asked(config: Config) -> None:
    if config.export.push_to_hub is not None:
        check_hub_name(config.export.push_to_hub)
    if config.export.format == ADAPTER:
        require_adapter(config)
        if config.run.dir is None:
            raise ConfigError(f"`export.format={ADAPTER}` needs the run whose adapter it is. Name a run directory.")


def _packed_before(config: Config) -> Packed | None:
    """Return what the run packed before this call, if it did."""
    return Packed.at(RunDirectory(Path(config.run.dir)).artefact) if config.run.dir else None


def _packed_folder(config: Config) -> tuple[Path, RunDirectory | None]:
    """Return the packed folder to write from, made first where a run has none or is to be packed again."""
    named = Path(config.path) if config.path else None
    if named is not None and (named / MANIFEST_NAME).is_file():
        if config.export.format == PACKED and config.export.push_to_hub is None and not config.export.also:
            raise ConfigError(
                f"{named} is packed already. Choose another format: `export=gguf`, `export=hf_bitnet` ..."
            )
        return named, assembly.finished_run(config) if config.run.dir else None
    directory = assembly.finished_run(config)
    is_old = directory.artefact_is_old()
    is_pushed = config.export.push_to_hub is not None and is_old is False  # as it lies there
    if (config.export.format == PACKED and not is_pushed) or config.export.force or is_old is not False:
        _pack(config, directory, force=config.export.force or (is_old is True and config.export.format != PACKED))
    return directory.artefact, directory


def _pack(config: Config, directory: RunDirectory, *, force: bool) -> Manifest:
    model, tokenizer = _finished_model(config, directory)
    licence = licence_of(config.model.source)
    facts = {
        "base_model": public_name(config.model.source),
        "recipe": config.recipe,
        "training": _training(directory),
    } | ({} if licence is None else {LICENCE_FACT: licence})
    settings = config.export
    manifest = export_packed(
        model,
        tokenizer,
        directory.artefact,
        facts,
        force=force,
        embedding=settings.embedding,
        head=settings.head,
    )
    console = _console(config)
    console.print(render_sizes(manifest))
    size = ModelSize(manifest.sizes, folder_size(config, directory.artefact))
    console.print(f"Packed into {directory.artefact}: {spoken(size)}", soft_wrap=True)
    if larger := warning(size):
        console.print(f"warning: {larger}", style="yellow", soft_wrap=True)
    return manifest


def _training(directory: RunDirectory) -> dict[str, Any]:
    """Return what the card says of training: the step that was merged, which need not be the last that was made.

    A model that was trained block by block alone has tokens only.
    """
    trained, merged = directory.kept(TrainFacts), directory.kept(MergeFacts)
    if merged is not None and (trained is None or trained.result.steps != merged.step):
        return {"steps": merged.step, "tokens": merged.tokens, "metrics": merged.metrics}
    if trained is not None:
        return {"steps": trained.result.steps, "tokens": trained.result.tokens, "metrics": trained.result.metrics}
    blocks = directory.kept(ReconstructFacts)
    return {"steps": None, "tokens": blocks.made.tokens if blocks is not None else None, "metrics": None}


def _finished_model(config: Config, directory: RunDirectory) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    if config.adapter.kind != OUTSIDE:
        model, tokenizer, _ = load_converted(directory.merged, mapped=True)
        return model, tokenizer
    original = load_pretrained(config.model.source)
    assembly.convert_model(config, original.model, original.record)
    return original.model, original.tokenizer


def _write_adapter(config: Config, directory: RunDirectory) -> tuple[Path, WrittenFormat]:
    original = load_pretrained(config.model.source)
    trained = assembly.trained_student(config, original, directory)
    assert isinstance(trained.student.model, PeftModel)
    out = _target(config, directory.artefact, directory)
    facts = write_adapter(trained.student.model, out, force=config.export.force)
    _console(config).print(f"Adapter of {facts['num_layers']} layers written into {out}; its base is `export=gguf`.")
    return out, WrittenFormat(ADAPTER, str(out), facts=facts)


def _write_format(config: Config, packed: Path, out: Path, name: str) -> tuple[Path, WrittenFormat]:
    settings = config.export
    record = export_as(name, packed, out, settings.options, force=settings.force)
    total = sum(entry.num_bytes for entry in record.files.values())
    console = _console(config)
    console.print(f"Written as {name} into {out}: {len(record.files)} files, {total / 1e6:.1f} MB")
    if "why" in record.facts:
        console.print(f"{record.facts['type']}: {record.facts['why']}")
    for note in record.facts.get("notes", ()):
        console.print(f"note: {note}", markup=False)
    return out, WrittenFormat(name, str(out), total, record.facts)


def _target(config: Config, packed: Path, directory: RunDirectory | None) -> Path:
    if config.export.out is not None:
        return Path(config.export.out)
    return _usual_target(config, config.export.format, packed, directory)


def _usual_target(config: Config, name: str, packed: Path, directory: RunDirectory | None) -> Path:
    name += f"-{config.export.type}" if name == "gguf" else ""
    return packed.with_name(f"{packed.name}-{name}") if directory is None else directory.exports / name


def _console(config: Config) -> Console:
    return open_console(config.quiet)
