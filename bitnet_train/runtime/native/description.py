"""`native.json`: a packed folder in the numbers that the C++ core computes with, for programs without Python.

What a family does (`families.py`) and how a folder's tensors are called is known in Python alone; here it is resolved,
so that a reader needs to know neither. Python itself does not read the file.

    {
      "schema": 1, "format": "planes_v1",
      "model": {...}                  the arguments of `_core.Model`, but for inv_freq
      "inv_freq": ["..."]             the tensor of each rotary position's frequencies
      "stop_ids": [0, 2]              tokens that end a text
      "places": [                     every module with weights, in the order in which they are handed over
        {"kind": "norm", "name": .., "weight": TENSOR, "offset": 0.0}
        {"kind": "planes", "name": .., "planes": TENSOR, "scale": TENSOR, "inputs": K, "group_size": .., "weights": ..,
         "activation": ..}            and where it has them `bias`, and `parts`: [[name, rows], ..] that its rows are
        {"kind": "plane_rows", ...}   an embedding of such rows: no activation, bias or parts
        {"kind": "table", "name": .., "codes": TENSOR, "scale": TENSOR, "inputs": K, "bits": 8}   below 8 `multipliers`
        {"kind": "floats", "name": .., "weight": TENSOR}                                          `bias`, `parts`
        {"kind": "tied", "name": "lm_head"}]
      "unused": ["..."]               tensors of the file that no computation reads
    }

TENSOR is the name under which a tensor is stored; every tensor of the file is named somewhere here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bitnet_train.packed.end_tokens import end_tokens
from bitnet_train.packed.manifest import FORMAT, LayerEntry, Manifest, TableEntry
from bitnet_train.packed.names import (
    CONFIG_NAME,
    GENERATION_NAME,
    NATIVE_NAME,
    WEIGHTS_NAME,
    bias_name,
    codes_name,
    multipliers_name,
    planes_name,
    scale_name,
)
from bitnet_train.runtime.native.architecture import Architecture, NotNative
from bitnet_train.runtime.native.support import HEAD, Place, architecture_of, is_tied, read_json
from bitnet_train.runtime.native.tensor_file import TensorFile
from bitnet_train.runtime.native.weights import core_arguments, in_order

SCHEMA = 1


def write_native(folder: Path, manifest: Manifest) -> None:
    """Write `native.json` into a folder that has its other files; nothing where the core does not compute it."""
    try:
        model = architecture_of(folder, manifest)
    except NotNative:
        return
    with TensorFile(folder / WEIGHTS_NAME) as weights:
        body = describe(folder, manifest, model, weights)
    (folder / NATIVE_NAME).write_text(json.dumps(body, separators=(",", ":"), allow_nan=False), encoding="utf-8")


def describe(folder: Path, manifest: Manifest, model: Architecture, weights: TensorFile) -> dict[str, Any]:
    """Return what `native.json` says, described at the top of this module."""
    generation = folder / GENERATION_NAME
    named = [_described(place, model, manifest) for place in in_order(model)]
    inv_freq = [rope.tensor for rope in model.ropes]
    used = {*inv_freq, *(value for place in named for value in place.values() if isinstance(value, str))}
    return {
        "schema": SCHEMA,
        "format": FORMAT,
        "model": core_arguments(model, weights),
        "inv_freq": inv_freq,
        "stop_ids": list(
            end_tokens(read_json(generation) if generation.is_file() else {}, read_json(folder / CONFIG_NAME))
        ),
        "places": named,
        "unused": sorted(set(manifest.tensors) - used),
    }


def _described(place: Place, model: Architecture, manifest: Manifest) -> dict[str, Any]:
    layers: Mapping[str, LayerEntry] = {layer.name: layer for layer in manifest.layers}
    tables: Mapping[str, TableEntry] = {table.name: table for table in manifest.tables}
    name = place.name
    if place.kind == "norm":
        return {"kind": "norm", "name": name, "weight": f"{name}.weight", "offset": model.family.norm_offset}
    if name in layers:
        return _planes(layers[name], place)
    if name == HEAD and is_tied(manifest):
        return {"kind": "tied", "name": name}
    if name in tables:
        return _table(tables[name], manifest)
    kind = {"kind": "floats", "name": name, "weight": f"{name}.weight"}
    return kind | dict(_bias(name, bias_name(name) in manifest.tensors)) | dict(_parts(place))


def _planes(layer: LayerEntry, place: Place) -> dict[str, Any]:
    described = {
        "kind": "planes",
        "name": layer.name,
        "planes": planes_name(layer.name),
        "scale": scale_name(layer.name),
        "inputs": layer.num_inputs,
        "group_size": layer.scheme.inputs_per_scale(layer.num_inputs),
        "weights": layer.scheme.code_set,
    }
    if layer.kind == "embedding":
        return described | {"kind": "plane_rows"}
    described["activation"] = layer.activation.name
    return described | dict(_bias(layer.name, layer.has_bias)) | dict(_parts(place))


def _table(table: TableEntry, manifest: Manifest) -> dict[str, Any]:
    described: dict[str, Any] = {
        "kind": "table",
        "name": table.name,
        "codes": manifest.stored_name(codes_name(table.name)),
        "scale": manifest.stored_name(scale_name(table.name)),
        "inputs": table.num_inputs,
        "bits": table.bits,
    }
    if table.bits < 8:
        described["multipliers"] = manifest.stored_name(multipliers_name(table.name))
    return described | dict(_bias(table.name, table.has_bias))


def _bias(name: str, has_bias: bool) -> Iterator[tuple[str, str]]:
    if has_bias:
        yield "bias", bias_name(name)


def _parts(place: Place) -> Iterator[tuple[str, list[list[Any]]]]:
    if place.parts:
        yield "parts", [list(part) for part in place.parts]
