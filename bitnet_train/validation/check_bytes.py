"""Level 1 of `validate`: every byte is the one that was written, and every code and scale the one that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitnet_train.errors import FormatError
from bitnet_train.formats.planes import pack_planes
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.packed.contents import other_tensors
from bitnet_train.packed.manifest import LayerEntry, Manifest, sha256_of
from bitnet_train.packed.narrow import hashable, same_bits
from bitnet_train.packed.reader import WeightsReader, open_weights, verify_files
from bitnet_train.packed.stored import StoredLayer
from bitnet_train.progress import track
from bitnet_train.validation.check_tables import table_problem
from bitnet_train.validation.report import Level


def check_bytes(folder: Path, trained: nn.Module | None) -> Level:
    """Level 1. Every byte is the one that was written; with a trained model, codes and scales are those it computes."""
    figures: dict[str, int | float | str] = {}
    compared = "files with their hashes, tensors with the manifest, unpacked and packed again with the planes"
    if trained is not None:
        compared += "; codes, scales and all other tensors with the trained model"
    try:
        manifest = verify_files(folder)
        figures = {"files": len(manifest.files), "tensors": len(manifest.tensors), "layers": len(manifest.layers)}
        if manifest.tables:
            figures["int8_tables"] = len(manifest.tables)
            compared += "; its float tables, rounded alike, with the int8 ones" if trained is not None else ""
        with open_weights(folder, manifest) as weights:
            failure = _first_bad_tensor(manifest, weights, trained)
    except FormatError as error:
        failure = str(error)
    return Level("bytes", compared, figures, failure)


def _first_bad_tensor(manifest: Manifest, weights: WeightsReader, trained: nn.Module | None) -> str | None:
    for name in manifest.tensors:
        weights.read(name, verify=True)
    trained_layers = {} if trained is None else bit_layers(trained)
    if trained is not None and set(trained_layers) != {layer.name for layer in manifest.layers}:
        other = sorted(set(trained_layers) ^ {layer.name for layer in manifest.layers})[0]
        return f"{other}: a 1-bit layer in one of the two models only"
    for layer in track(manifest.layers, "Validating bytes", len(manifest.layers)):
        problem = _layer_problem(layer, weights, trained_layers.get(layer.name))
        if problem:
            return f"{layer.name}: {problem}"
    for table in manifest.tables:
        problem = table_problem(table, weights, trained)
        if problem:
            return f"{table.name}: {problem}"
    kept = {*trained_layers, *(table.name for table in manifest.tables)}
    return None if trained is None else _first_other_tensor(manifest, weights, trained, kept)


def _layer_problem(layer: LayerEntry, weights: WeightsReader, trained: Any) -> str | None:
    stored = weights.layer(layer)
    planes, scale, codes = stored.planes, stored.scale, stored.codes()
    checks = {
        "planes: packing the unpacked codes again gives other bytes": torch.equal(
            pack_planes(codes, layer.scheme.code_set), planes
        ),
        "planes: the codes have another hash than the manifest says": sha256_of(hashable(codes)) == layer.codes_sha256,
        "scale: other hash than the manifest says": sha256_of(hashable(scale)) == layer.scale_sha256,
        f"scale: not {layer.scheme.scale_dtype}": scale.dtype == layer.scheme.torch_scale_dtype,
        "scale: wrong shape": tuple(scale.shape) == layer.scheme.scale_shape(layer.num_outputs, layer.num_inputs),
        "scale: neither 0 nor a finite normal number above it": bool(_is_scale(scale).all()),
    }
    if trained is not None:
        checks |= _checks_against(stored, codes, trained)
    return next((problem for problem, passed in checks.items() if not passed), None)


def _is_scale(scale: Tensor) -> Tensor:
    is_zero = (scale == 0) & ~torch.signbit(scale)
    return is_zero | (torch.isfinite(scale) & (scale >= torch.finfo(scale.dtype).tiny))


def _checks_against(stored: StoredLayer, codes: Tensor, trained: Any) -> dict[str, bool]:
    layer, (trained_codes, trained_scale) = stored.entry, trained.quantized()
    differing = int((codes != trained_codes).sum()) if codes.shape == trained_codes.shape else -1
    return {
        f"scheme: the trained layer has {trained.weight_scheme}": layer.scheme == trained.weight_scheme,
        f"activation: the trained layer has {trained.activation.name}": layer.activation == trained.activation,
        f"codes: {differing} of {codes.numel()} differ from the trained ones": differing == 0,
        "scale: differs from the trained one": same_bits(stored.scale.float(), trained_scale.detach().float()),
        "bias: differs from the trained one": _same_or_none(stored.bias, trained.bias),
    }


def _same_or_none(stored: Tensor | None, trained: Tensor | None) -> bool:
    if stored is None or trained is None:
        return stored is None and trained is None
    return same_bits(stored.float(), trained.detach().float())


def _first_other_tensor(manifest: Manifest, weights: WeightsReader, trained: nn.Module, packed: set[str]) -> str | None:
    for name, tensor in other_tensors(trained, packed).items():
        stored_name = manifest.tied.get(name, name)
        if stored_name not in manifest.tensors:
            return f"{name}: in the trained model, not in the folder"
        stored = weights.read(stored_name)
        if not same_bits(stored.to(tensor.dtype), tensor.detach()):
            return f"{name}: differs from the trained one"
    return None
