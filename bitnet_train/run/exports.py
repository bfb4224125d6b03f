"""Whether the model that will be trained fits the formats that are to be written of it: asked before training."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

from bitnet_train.config import Config
from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.exporters.registry import exporter_of
from bitnet_train.importers.load import LoadedModel
from bitnet_train.model.converted import ConversionRecord, empty_converted
from bitnet_train.packed.planned import planned_source
from bitnet_train.run import assembly

PACKED, ADAPTER = "packed", "gguf_adapter"
OUTSIDE = "lora_outside"


def check_exports(config: Config, original: LoadedModel) -> None:
    """Raise ConfigError when the model that will be trained does not fit a format that is to be written of it.

    It says which layer, and which scheme fits. Asked before training: what a format cannot hold is known by then.
    """
    settings = config.export
    formats = {name: "export.format" for name in (settings.format,) if name not in (PACKED, ADAPTER)}
    formats |= {name: "export.also" for name in settings.also if name not in formats}
    if settings.format == ADAPTER:
        require_adapter(config)
    if not formats and settings.embedding == settings.head == "exact":
        return
    model = empty_converted(deepcopy(original.model.config), _record(config, original))
    with planned_source(model, original.tokenizer, embedding=settings.embedding, head=settings.head) as source:
        for name, key in formats.items():
            try:
                exporter_of(name).check(source, settings.options)
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
    given, stored = replace(given, activation=config.activation), config.weight.tables
    return given if stored == "exact" else replace(given, tables=tables, stored_tables=stored)


def require_adapter(config: Config) -> None:
    """Raise ConfigError where the run has no adapter outside the quantiser to export."""
    if config.adapter.kind != OUTSIDE:
        raise ConfigError(
            f"`export.format={ADAPTER}` is for a run with `adapter.kind={OUTSIDE}`. Other adapters become part of the "
            "1-bit weights: `bitnet-train merge RUN`, then `bitnet-train export RUN export=gguf`."
        )
