"""`bitnet-train import`: a model that is 1-bit already, brought in as a packed folder."""

from __future__ import annotations

from bitnet_train.config import Config, changed
from bitnet_train.config.compose import to_yaml
from bitnet_train.errors import ConfigError
from bitnet_train.exporters.packed import export_packed
from bitnet_train.importers.load import load_pretrained
from bitnet_train.importers.source import public_name, settled_source
from bitnet_train.progress import open_console
from bitnet_train.run import assembly
from bitnet_train.run.facts import ImportFacts


def import_(config: Config) -> ImportFacts:
    """Bring a model whose weights are 1-bit already in, as a packed folder that holds exactly its codes and scales."""
    assembly.prepare_process(config)
    source = config.path or config.model.source
    loaded = load_pretrained(source)
    if loaded.record is None:
        raise ConfigError(
            f"{source} is a float model ({loaded.description}): there is nothing 1-bit to import. Train it: "
            f"`bitnet-train run RECIPE model.source={source}`."
        )
    config, directory = assembly.open_run(changed(config, {"model.source": settled_source(source)}))
    console = open_console(config.quiet)
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
    return directory.keep(ImportFacts(str(directory.artefact), manifest.sizes))
