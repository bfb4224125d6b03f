"""The stages at the doors: `export` writes a model out in any format, `import` brings a 1-bit model in.

Every format is written from the packed folder, so a run is packed first where it is not yet. What is written lies in
the run directory (`exports/FORMAT`), beside the packed folder where that has no run, or where `export.out` says. An
adapter outside the quantiser cannot be merged: such a run packs its base, which training left as it was, and the
adapter goes out beside it. `train` and `run` ask `check_exports` first, so that no format is refused after hours.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train import assembly
from bitnet_train.config import Config, build
from bitnet_train.config.compose import to_yaml
from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.exporters.gguf_adapter import write_adapter
from bitnet_train.exporters.hub import check_hub_name, push_folder
from bitnet_train.exporters.manifest import MANIFEST_NAME, Manifest
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.packed import export_packed
from bitnet_train.exporters.planned import planned_source
from bitnet_train.exporters.reader import read_manifest
from bitnet_train.exporters.sizes import render_sizes
from bitnet_train.exporters.table import export_as, exporter_of
from bitnet_train.folder_size import folder_sizes, spoken, warning
from bitnet_train.model.converted import ConversionRecord, empty_converted, map_converted
from bitnet_train.model.load import LoadedModel, load_pretrained
from bitnet_train.model.source import public_name, settled_source
from bitnet_train.progress import open_console
from bitnet_train.quant.scheme import ActivationScheme
from bitnet_train.run_directory import RunDirectory

__all__ = ["check_exports", "export", "import_model"]

PACKED, ADAPTER = "packed", "gguf_adapter"
OUTSIDE = "lora_outside"
Facts = dict[str, Any]


def export(config: Config) -> Facts:
    """Pack the merged model of a run, and write it (or a packed folder) in the format that was asked for."""
    assembly.prepare_process(config)
    _check_asked(config)
    packed, directory = _packed_folder(config)
    sizes: Facts = asdict(read_manifest(packed).sizes) | (folder_sizes(config, packed) if directory else {})
    facts: Facts = {"artefact": str(packed), "sizes": sizes}
    folder = packed
    if config.export.format == ADAPTER:
        assert directory is not None, "checked above"
        folder, facts["written"] = _write_adapter(config, directory)
    elif config.export.format != PACKED:
        folder, facts["written"] = _write_format(
            config, packed, _target(config, packed, directory), config.export.format
        )
    further = [name for name in dict.fromkeys(config.export.also) if name != config.export.format]
    targets = {name: _usual_target(config, name, packed, directory) for name in further}
    facts["also"] = [_write_format(config, packed, targets[name], name)[1] for name in further]
    if config.export.push_to_hub is not None:
        facts["hub"] = push_folder(folder, config.export.push_to_hub)
        _console(config).print(f"Uploaded to {facts['hub']}")
    return directory.write_facts("export", facts) if directory is not None else facts


def import_model(config: Config) -> Facts:
    """Bring a model whose weights are 1-bit already in, as a packed folder that holds exactly its codes and scales."""
    assembly.prepare_process(config)
    source = config.path or config.model.source
    loaded = load_pretrained(source)
    if loaded.record is None:
        raise ConfigError(
            f"{source} is a float model ({loaded.description}): there is nothing 1-bit to import. Train it: "
            f"`bitnet-train run RECIPE model.source={source}`."
        )
    config.model.source = settled_source(source)
    directory, console = assembly.open_run(config), _console(config)
    manifest = export_packed(
        loaded.model,
        loaded.tokenizer,
        directory.artefact,
        {"base_model": public_name(config.model.source), "imported": True},
        force=config.export.force,
        embedding=config.export.embedding,
        head=config.export.head,
    )
    assembly.record_run(config, to_yaml(config), directory, console.print)
    console.print(loaded.description)
    console.print(f"Packed into {directory.artefact}. Train on from it with `model.source={source}`.")
    return directory.write_facts("import", {"artefact": str(directory.artefact), "sizes": asdict(manifest.sizes)})


def check_exports(config: Config, original: LoadedModel) -> None:
    """Raise ConfigError when the model that will be trained does not fit a format that is to be written of it.

    It says which layer, and which scheme fits. Asked before training: what a format cannot hold is known by then.
    """
    settings = config.export
    formats = {name: "export.format" for name in (settings.format,) if name not in (PACKED, ADAPTER)}
    formats |= {name: "export.also" for name in settings.also if name not in formats}
    if settings.format == ADAPTER:
        _require_adapter(config)
    if not formats and settings.embedding == settings.head == "exact":
        return
    model = empty_converted(deepcopy(original.model.config), _record(config, original))
    with planned_source(model, original.tokenizer, embedding=settings.embedding, head=settings.head) as source:
        for name, key in formats.items():
            try:
                exporter_of(name).check(source, build(ExportOptions, settings))
            except FormatError as error:
                raise ConfigError(
                    f"`{key}={name}` does not fit what is to be trained, and nothing was trained yet. {error}"
                ) from error


def _record(config: Config, original: LoadedModel) -> ConversionRecord:
    """What conversion would record of this model, which stays as it is."""
    plan = assembly.plan_of(config, original)
    tables, given = assembly.tables_of(config, original, plan), original.record
    if given is None:
        return assembly.record_of(config, plan, tables)
    kept = given.tables if tables is None else tables
    return replace(given, activation=build(ActivationScheme, config.activation), tables=kept)


def _check_asked(config: Config) -> None:
    if config.export.push_to_hub is not None:
        check_hub_name(config.export.push_to_hub)
    if config.export.format == ADAPTER:
        _require_adapter(config)
        if config.run.dir is None:
            raise ConfigError(f"`export.format={ADAPTER}` needs the run whose adapter it is. Name a run directory.")


def _require_adapter(config: Config) -> None:
    if config.adapter.kind != OUTSIDE:
        raise ConfigError(
            f"`export.format={ADAPTER}` is for a run with `adapter.kind={OUTSIDE}`. Other adapters become part of the "
            "1-bit weights: `bitnet-train merge RUN`, then `bitnet-train export RUN export=gguf`."
        )


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
    if config.export.format == PACKED or config.export.force or is_old is not False:
        _pack(config, directory, force=config.export.force or (is_old is True and config.export.format != PACKED))
    return directory.artefact, directory


def _pack(config: Config, directory: RunDirectory, *, force: bool) -> Manifest:
    model, tokenizer = _finished_model(config, directory)
    trained = directory.facts("train") or directory.facts("reconstruct") or {}
    facts = {
        "base_model": public_name(config.model.source),
        "recipe": config.recipe,
        "training": {name: trained.get(name) for name in ("steps", "tokens", "metrics")},
    }
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
    sizes = asdict(manifest.sizes) | folder_sizes(config, directory.artefact)
    console.print(f"Packed into {directory.artefact}: {spoken(sizes)}", soft_wrap=True)
    if larger := warning(sizes):
        console.print(f"warning: {larger}", style="yellow", soft_wrap=True)
    return manifest


def _finished_model(config: Config, directory: RunDirectory) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    if config.adapter.kind != OUTSIDE:
        model, tokenizer, _ = map_converted(directory.merged)
        return model, tokenizer
    original = assembly.load_original(config)
    assembly.convert_model(config, original.model, original.record)
    return original.model, original.tokenizer


def _write_adapter(config: Config, directory: RunDirectory) -> tuple[Path, Facts]:
    original = assembly.load_original(config)
    trained = assembly.trained_student(config, original, directory, _console(config).print)
    assert isinstance(trained.student.model, PeftModel)
    out = _target(config, directory.artefact, directory)
    facts = write_adapter(trained.student.model, out, force=config.export.force)
    _console(config).print(f"Adapter of {facts['num_layers']} layers written into {out}; its base is `export=gguf`.")
    return out, {"format": ADAPTER, "folder": str(out), "facts": facts}


def _write_format(config: Config, packed: Path, out: Path, name: str) -> tuple[Path, Facts]:
    settings = config.export
    record = export_as(name, packed, out, build(ExportOptions, settings), force=settings.force)
    total = sum(entry.num_bytes for entry in record.files.values())
    console = _console(config)
    console.print(f"Written as {name} into {out}: {len(record.files)} files, {total / 1e6:.1f} MB")
    if "why" in record.facts:
        console.print(f"{record.facts['type']}: {record.facts['why']}")
    for note in record.facts.get("notes", ()):
        console.print(f"note: {note}", markup=False)
    return out, {"format": name, "folder": str(out), "num_bytes": total, "facts": record.facts}


def _target(config: Config, packed: Path, directory: RunDirectory | None) -> Path:
    if config.export.out is not None:
        return Path(config.export.out)
    return _usual_target(config, config.export.format, packed, directory)


def _usual_target(config: Config, name: str, packed: Path, directory: RunDirectory | None) -> Path:
    name += f"-{config.export.type}" if name == "gguf" else ""
    return packed.with_name(f"{packed.name}-{name}") if directory is None else directory.exports / name


def _console(config: Config) -> Console:
    return open_console(config.quiet)
