"""A packed folder as a model to train again: its codes and scales in BitLinear and BitEmbedding, exactly.

The latent weights that were trained are not in the folder, so training starts from scale * code, and the scales are
learnable whatever they were (`importers/one_bit_model.py`). Tables keep their bits: they train rounded, from what they
are (`model/rounded_table.py`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import FormatError
from bitnet_train.importers.one_bit_model import OneBitWeight, empty_model, fill_one_bit
from bitnet_train.model.converted import ConversionRecord
from bitnet_train.model.generation_settings import restore_generation_settings
from bitnet_train.model.rounded_table import put_tables
from bitnet_train.packed.names import CONFIG_MARKS, bias_name
from bitnet_train.packed.source import PackedSource, open_packed
from bitnet_train.quant.scheme import TABLE_BITS, ActivationScheme, TableType
from bitnet_train.rust_panic import panics_as_errors


def reopen_packed(
    folder: str | Path, *, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, ConversionRecord]:
    """The model in evaluation mode, its tokenizer if the folder has one, and the record of its 1-bit layers.

    Raises FormatError for a damaged folder, and for layers whose activations differ.
    """
    with open_packed(folder) as source:
        try:
            config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
            for mark in CONFIG_MARKS:
                vars(config).pop(mark, None)
            model = empty_model(config, dtype)
            has_tokenizer = source.companion("tokenizer_config.json") is not None
            with panics_as_errors():
                read = AutoTokenizer.from_pretrained
                tokenizer = read(source.folder, trust_remote_code=False) if has_tokenizer else None
        except Exception as error:  # of any kind: transformers takes files apart without a look at them
            raise FormatError(f"transformers cannot make a model of {source.folder}: {error}.") from error
        restore_generation_settings(model, source.folder)
        schemes = {name: replace(layer.scheme, learnable_scale=True) for name, layer in source.layers.items()}
        activations = {layer.activation for layer in source.layers.values() if layer.kind == "linear"}
        if len(activations) > 1:
            names = ", ".join(sorted(activation.name for activation in activations))
            raise FormatError(f"{source.folder} has layers with activations {names}, and a model trains with one.")
        activation = next(iter(activations), ActivationScheme())
        record = fill_one_bit(model, _one_bit(source), _floats(source), activation, schemes)
        if source.tables:
            stored = _table_type(source)
            put_tables(model, source.tables, stored)
            record = replace(record, tables=tuple(source.tables), stored_tables=stored)
    return model, tokenizer, record


def _table_type(source: PackedSource) -> TableType:
    found = {table.bits for table in source.tables.values()}
    for stored, bits in TABLE_BITS.items():
        if found == {bits}:
            return stored
    raise FormatError(f"{source.folder} has tables of different bits, and a model trains with one kind.")


def _one_bit(source: PackedSource) -> dict[str, OneBitWeight]:
    layers = ((name, source.layer(name)) for name in source.layers)
    return {name: OneBitWeight(f"{source.folder}: {name}", layer.codes, layer.scale) for name, layer in layers}


def _floats(source: PackedSource) -> dict[str, Tensor]:
    floats = {name: source.dense(name) for name in source.floats}
    floats |= {f"{name}.weight": source.dense(name) for name in source.tables}
    for part in (*map(source.layer, source.layers), *map(source.table, source.tables)):
        if part.bias is not None:
            floats[bias_name(part.entry.name)] = part.bias
    return floats
