"""Hand a packed folder's weights to the C++ model, straight from the mapped file, one module after another.

The C++ side keeps its own copy in the order that its kernels read; the pages of the file are given back after each
module. So the peak is the model plus one module, and what stays is the model alone. Embedding and head come first: they
are the largest, and the model is not whole yet when their part of the file is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_train.errors import BitnetTrainError, FormatError
from bitnet_train.formats.narrow_codes import unpack_narrow
from bitnet_train.packed.manifest import LayerEntry, Manifest, TableEntry
from bitnet_train.packed.names import WEIGHTS_NAME, bias_name, codes_name, multipliers_name, planes_name, scale_name
from bitnet_train.runtime.native.architecture import Architecture
from bitnet_train.runtime.native.support import EMBEDDING, EMBEDDING_SCALE, HEAD, Place, is_tied, places
from bitnet_train.runtime.native.tensor_file import TensorFile

_COPY_AGAIN = "Copy the folder again, or export the model again."
_WORD_BITS = 64

Parts = tuple[tuple[str, int], ...]


def build(folder: Path, manifest: Manifest, model: Architecture, num_threads: int) -> Any:
    """Return the finished `_core.Model` of a folder that fits (`support.fit`).

    Raises FormatError, naming the tensor, when the weights file is damaged or disagrees with the manifest.
    """
    with TensorFile(folder / WEIGHTS_NAME) as weights:
        _check_names(weights, manifest, folder)
        with _named("config.json"):
            core = _empty(model, weights)
        put = _Hand(core, weights, manifest, model.family.norm_offset)
        for place in in_order(model):
            with _named(place.name):
                put(place)
            weights.forget()
    with _named("config.json"):
        core.finish(num_threads)
    return core


def in_order(model: Architecture) -> list[Place]:
    """Return every module with weights, in the order in which they are handed over."""
    return sorted(places(model), key=_is_of_a_layer)


def _empty(model: Architecture, weights: TensorFile) -> Any:
    """Return a `_core.Model` without weights."""
    from bitnet_train.kernels import _core

    extension: Any = _core
    inv_freq = [weights.float32(rope.tensor) for rope in model.ropes]
    return extension.Model(**core_arguments(model, weights), inv_freq=inv_freq)


def core_arguments(model: Architecture, weights: TensorFile) -> dict[str, Any]:
    """Return the arguments of `_core.Model` that are numbers and words: all but `inv_freq`."""
    sizes, scaled = model.sizes, model.family.scaled_embedding
    return {
        "hidden": sizes.hidden,
        "ff": sizes.ff,
        "heads": sizes.heads,
        "kv_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "vocab": sizes.vocab,
        "max_positions": sizes.max_positions,
        "rms_eps": model.rms_eps,
        "rope_scaling": [rope.scaling for rope in model.ropes],
        "layer_ropes": [layer.rope for layer in model.layers],
        "layer_windows": [layer.window for layer in model.layers],
        "attention_scale": model.attention_scale,
        "attention_soft_cap": model.attention_soft_cap,
        "embedding_scale": float(weights.float32(EMBEDDING_SCALE)) if scaled else model.embedding_scale,
        "residual_scale": model.residual_scale,
        "logit_divisor": model.logit_divisor,
        "logit_soft_cap": model.logit_soft_cap,
        "gate": model.gate,
        "query_norms": model.family.query_norms,
        "norms": model.family.norms,
    }


def _is_of_a_layer(place: Place) -> bool:
    return place.name not in (EMBEDDING, HEAD)


def _check_names(weights: TensorFile, manifest: Manifest, folder: Path) -> None:
    """Check that the file holds the tensors of the manifest, in its dtypes and shapes, and no others."""
    differing = sorted(set(weights.tensors) ^ set(manifest.tensors))
    if differing:
        raise FormatError(f"{folder / WEIGHTS_NAME} and the manifest disagree about {differing[0]!r}. {_COPY_AGAIN}")
    for name, stored in weights.tensors.items():
        entry = manifest.tensors[name]
        if (stored.dtype, stored.shape) != (entry.dtype, entry.shape):
            raise FormatError(
                f"{folder / WEIGHTS_NAME}: {name} is {stored.dtype} {list(stored.shape)} where the manifest says "
                f"{entry.dtype} {list(entry.shape)}. {_COPY_AGAIN}"
            )


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the module's name on whatever is wrong with its tensors."""
    try:
        yield
    except (BitnetTrainError, ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"{name}: {error}") from error


class _Hand:
    """Hands one module after another from the file to the C++ model."""

    def __init__(self, core: Any, weights: TensorFile, manifest: Manifest, norm_offset: float) -> None:
        self._core, self._weights, self._manifest = core, weights, manifest
        self._norm_offset = np.float32(norm_offset)
        self._layers = {layer.name: layer for layer in manifest.layers}
        self._tables = {table.name: table for table in manifest.tables}

    def __call__(self, place: Place) -> None:
        if place.kind == "norm":
            self._core.set_norm(place.name, self._weights.float32(f"{place.name}.weight") + self._norm_offset)
        elif place.name in self._layers:
            self._put_packed(self._layers[place.name], place.parts)
        elif place.name == HEAD and is_tied(self._manifest):
            self._core.tie_head()
        elif place.name in self._tables:
            self._put_table(self._tables[place.name])
        else:
            self._put_dense(place.name, place.parts)

    def _put_dense(self, name: str, parts: Parts) -> None:
        weight = f"{name}.weight"
        rows, dtype = self._weights.rows_of_bytes(weight), self._weights.tensors[weight].dtype
        bias = self._bias(name, rows.shape[0])
        for part, span in _spans(name, parts):
            self._core.set_dense(part, rows[span], dtype, None if bias is None else bias[span])

    def _put_table(self, table: TableEntry) -> None:
        scale = self._weights.float32(self._manifest.stored_name(scale_name(table.name)))
        bias = self._bias(table.name, table.num_rows) if table.has_bias else None
        self._core.set_int8(table.name, self._codes(table), scale, bias)

    def _codes(self, table: TableEntry) -> np.ndarray:
        """Return the codes int8 [V, K] of a table."""
        codes = self._weights.array(self._manifest.stored_name(codes_name(table.name)))
        if table.bits == 8:
            return codes
        multipliers = self._weights.array(self._manifest.stored_name(multipliers_name(table.name)))
        return unpack_narrow(codes, multipliers, table.num_inputs, table.bits)

    def _put_packed(self, layer: LayerEntry, parts: Parts) -> None:
        if not _is_planes(self._weights, layer):
            raise FormatError(f"the planes are not uint8 of a {layer.num_outputs} x {layer.num_inputs} weight.")
        planes = self._weights.array(planes_name(layer.name))
        check_planes(planes, layer.num_inputs, layer.scheme.code_set)
        scale = self._weights.float32(scale_name(layer.name))
        shape = layer.scheme.scale_shape(layer.num_outputs, layer.num_inputs)
        if scale.shape != shape:
            raise FormatError(f"the scale has shape {list(scale.shape)}, and the scheme needs {list(shape)}.")
        if layer.kind == "embedding":
            self._core.set_packed_embedding(layer.name, planes, scale, layer.scheme.code_set)
        else:
            bias = self._bias(layer.name, layer.num_outputs) if layer.has_bias else None
            for part, span in _spans(layer.name, parts):
                part_scale = scale if scale.shape[0] == 1 else scale[span]
                part_bias = None if bias is None else bias[span]
                self._put_linear(layer, part, np.ascontiguousarray(planes[:, span]), part_scale, part_bias)

    def _put_linear(
        self, layer: LayerEntry, name: str, planes: np.ndarray, scale: np.ndarray, bias: np.ndarray | None
    ) -> None:
        self._core.set_packed(
            name,
            planes,
            scale,
            bias,
            layer.num_inputs,
            layer.scheme.inputs_per_scale(layer.num_inputs),
            layer.scheme.code_set,
            layer.activation.name,
        )

    def _bias(self, name: str, num_rows: int) -> np.ndarray | None:
        """Return the bias float32 [N] of a module, None if the file has none."""
        if bias_name(name) not in self._weights.tensors:
            return None
        bias = self._weights.float32(bias_name(name))
        if bias.shape != (num_rows,):
            raise FormatError(f"the bias has shape {list(bias.shape)}, and the layer {num_rows} outputs.")
        return bias


def _spans(name: str, parts: Parts) -> Iterator[tuple[str, slice]]:
    """Yield the layers that the rows of a module are cut into, itself where they are not: name and rows of each."""
    if not parts:
        yield name, slice(None)
    first = 0
    for part, rows in parts:
        yield part, slice(first, first + rows)
        first += rows


def _is_planes(weights: TensorFile, layer: LayerEntry) -> bool:
    stored = weights.tensors[planes_name(layer.name)]
    row_bytes = _WORD_BITS // 8 * -(-layer.num_inputs // _WORD_BITS)
    return stored.dtype == "uint8" and stored.shape == (layer.scheme.num_planes, layer.num_outputs, row_bytes)


def check_planes(planes: np.ndarray, num_inputs: int, code_set: str) -> None:
    """Raise a FormatError unless planes uint8 [P, N, bytes] are canonical: padding is 0, and so is a zero's sign."""
    first, spare = divmod(num_inputs, 8)
    padding_bits = np.zeros(planes.shape[-1], np.uint8)
    padding_bits[first:] = 0xFF
    if spare:
        padding_bits[first] = 0xFF << spare & 0xFF
    tail = planes[..., first:]
    if np.any(tail & padding_bits[first:]):
        raise FormatError("The planes have padding bits that are not 0. Export the model again.")
    if code_set == "ternary" and np.any(planes[1] & ~planes[0]):
        raise FormatError("Planes of a ternary weight have a sign bit on a zero weight. Export the model again.")
