"""Does a packed folder fit the native runtime? If not, the reason in words, and the Hugging Face path computes it.

A folder fits when its class is one of `families.FAMILIES`, every number that matters is stated, its tensors are
exactly those that such a model has, no packed layer takes float activations, and the extension is compiled in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.packed.json_fields import parse_object
from bitnet_train.packed.manifest import LayerEntry, Manifest, TableEntry
from bitnet_train.packed.names import CONFIG_NAME, bias_name, codes_name
from bitnet_train.packed.reader import read_manifest
from bitnet_train.runtime.native.architecture import Architecture, NotNative, read_architecture

HEAD = "lm_head"
EMBEDDING = "model.embed_tokens"
EMBEDDING_SCALE = "model.embed_tokens.embed_scale"

_LARGEST_JSON_BYTES = 64 << 20
_FLOATS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Place:
    """One module of the model: its name, and the shape [N, K] or [N] of its weight.

    `parts`, where it is not empty, are the layers that its rows are cut into: name and number of rows of each.
    """

    name: str
    kind: Literal["linear", "norm", "embedding"]
    shape: tuple[int, ...]
    parts: tuple[tuple[str, int], ...] = ()


def require_native_cache(cache_dtype: str, name: object, reason: str | None) -> None:
    """Raise ConfigError where a cache is wanted that torch, which computes a model for this reason, does not have."""
    if reason is not None and cache_dtype != "float32":
        raise ConfigError(
            f"`generate.cache_dtype={cache_dtype}` is kept by the native engine alone, and torch computes {name}: "
            f"{reason}. Leave it out."
        )


def reason_against(path: str | Path) -> str | None:
    """Return why the native runtime does not compute the packed folder at `path`, or None when it does.

    Raises FormatError when the folder is no packed folder, or is damaged.
    """
    try:
        fit(Path(path), read_manifest(path))
    except NotNative as reason:
        return str(reason)
    return None


def fit(folder: Path, manifest: Manifest) -> Architecture:
    """Return the architecture of a folder that fits.

    Raises
    ------
    NotNative
        When it does not fit; the message is the reason.
    FormatError
        When config.json and the manifest contradict each other.
    """
    _require_extension()
    return architecture_of(folder, manifest)


def architecture_of(folder: Path, manifest: Manifest) -> Architecture:
    """Return what `fit` does, for the C++ core of any machine: whether it is compiled in here is not asked."""
    model = read_architecture(read_json(folder / CONFIG_NAME), manifest.model_class)
    _check_contents(model, manifest)
    return model


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object from a small file; a FormatError names the file."""
    try:
        if path.stat().st_size > _LARGEST_JSON_BYTES:
            raise FormatError(f"{path} is larger than {_LARGEST_JSON_BYTES >> 20} MiB. Copy the folder again.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read: {error}. Copy the folder again.") from error
    return parse_object(text, path.name)


def places(model: Architecture) -> Iterator[Place]:
    """Yield every module of the model that has weights, in the order of the computation."""
    sizes = model.sizes
    yield Place(EMBEDDING, "embedding", (sizes.vocab, sizes.hidden))
    for index in range(sizes.layers):
        layer = f"model.layers.{index}"
        before_attention, after_attention, before_mlp, after_mlp = _layer_norms(model, layer)
        yield from before_attention
        yield from _attention_places(model, f"{layer}.self_attn")
        yield from (*after_attention, *before_mlp)
        yield from _projections(model, f"{layer}.mlp", "gate_up_proj", (("gate_proj", sizes.ff), ("up_proj", sizes.ff)))
        yield Place(f"{layer}.mlp.down_proj", "linear", (sizes.hidden, sizes.ff))
        yield from after_mlp
    yield Place("model.norm", "norm", (sizes.hidden,))
    yield Place(HEAD, "linear", (sizes.vocab, sizes.hidden))


def _attention_places(model: Architecture, attention: str) -> Iterator[Place]:
    sizes, norms = model.sizes, model.family.query_norms
    parts = (("q_proj", sizes.q), ("k_proj", sizes.kv), ("v_proj", sizes.kv))
    yield from _projections(model, attention, "qkv_proj", parts)
    if norms != "none":
        yield Place(f"{attention}.q_norm", "norm", (sizes.q if norms == "whole" else sizes.head_dim,))
        yield Place(f"{attention}.k_norm", "norm", (sizes.kv if norms == "whole" else sizes.head_dim,))
    yield Place(f"{attention}.o_proj", "linear", (sizes.hidden, sizes.q))


def _projections(model: Architecture, module: str, fused: str, parts: tuple[tuple[str, int], ...]) -> Iterator[Place]:
    """Yield linear layers of one input, or the one that holds the rows of all of them."""
    named, hidden = tuple((f"{module}.{name}", rows) for name, rows in parts), model.sizes.hidden
    if model.family.fused:
        yield Place(f"{module}.{fused}", "linear", (sum(rows for _, rows in parts), hidden), named)
        return
    yield from (Place(name, "linear", (rows, hidden)) for name, rows in named)


def _layer_norms(model: Architecture, layer: str) -> tuple[tuple[Place, ...], ...]:
    """Return the norms before and after attention, and before and after the MLP: none, or one."""

    def norm(name: str) -> tuple[Place, ...]:
        return (Place(f"{layer}.{name}", "norm", (model.sizes.hidden,)),)

    before, after = norm("input_layernorm"), norm("post_attention_layernorm")
    if model.family.norms == "inputs":  # where the norm before the MLP has the name of one after attention
        return before, (), after, ()
    if model.family.norms == "outputs":
        return (), after, (), norm("post_feedforward_layernorm")
    return before, after, norm("pre_feedforward_layernorm"), norm("post_feedforward_layernorm")


def is_tied(manifest: Manifest) -> bool:
    """Tell whether the head is the embedding's own table: of floats, or of int8 codes and their scales."""
    if any(table.name == HEAD and table.has_bias for table in manifest.tables):
        return False
    pairs = [(f"{HEAD}.weight", f"{EMBEDDING}.weight"), (codes_name(HEAD), codes_name(EMBEDDING))]
    return any(manifest.stored_name(head) == manifest.stored_name(embedding) for head, embedding in pairs)


def _require_extension() -> None:
    from bitnet_train.kernels.isa import REFERENCE, backend, core

    if core is None:
        raise NotNative("the compiled extension is missing from this installation")
    if not hasattr(core, "Model"):
        raise NotNative("the compiled extension is older than this package: install it again")
    if backend() == REFERENCE:
        raise NotNative("the reference kernel is forced, which is not native")


def _check_contents(model: Architecture, manifest: Manifest) -> None:
    """Check that the manifest has each tensor of the model in its shape, and no other."""
    if 2 * model.sizes.layers > len(manifest.tensors):
        raise FormatError(
            f"config.json: `num_hidden_layers={model.sizes.layers}`, and the manifest has {len(manifest.tensors)} "
            "tensors in all. Files of two folders were mixed: copy the folder again."
        )
    packed: dict[str, LayerEntry | TableEntry] = {layer.name: layer for layer in manifest.layers}
    packed |= {table.name: table for table in manifest.tables}
    needed = _check_numbers(model, manifest)
    for place in places(model):
        entry = packed.get(place.name)
        if isinstance(entry, LayerEntry):
            _check_packed(entry, place, (entry.num_outputs, entry.num_inputs))
            _check_activation(entry)
            needed |= set(entry.tensor_names)
        elif entry is not None:
            _check_packed(entry, place, (entry.num_rows, entry.num_inputs))
            needed |= set(entry.tensors)
        elif place.name != HEAD or not is_tied(manifest):
            needed |= _check_dense(place, manifest)
    unused = {f"{HEAD}.weight", *(rope.unused for rope in model.ropes)}
    strange = sorted((set(manifest.tensors) | set(manifest.tied)) - needed - unused)
    if strange:
        raise NotNative(f"its tensor {strange[0][:200]!r} has no place in a {manifest.model_class} as known here")


def _check_numbers(model: Architecture, manifest: Manifest) -> set[str]:
    """Check the tensors that are no module's weights and return their names."""
    needed = {rope.tensor for rope in model.ropes}
    for rope in model.ropes:
        if rope.tensor not in manifest.tensors:
            raise NotNative(f"the folder has no rotary frequencies ({rope.tensor!r})")
        _check_shape(rope.tensor, manifest, (rope.half,))
    if model.family.scaled_embedding:
        _check_shape(EMBEDDING_SCALE, manifest, ())
        needed.add(EMBEDDING_SCALE)
    return needed


def _check_packed(entry: LayerEntry | TableEntry, place: Place, shape: tuple[int, int]) -> None:
    if entry.kind != place.kind or shape != place.shape:
        raise FormatError(
            f"{place.name} is of kind {entry.kind} and {shape[0]} x {shape[1]} in the manifest, and {place.kind} and "
            f"{' x '.join(map(str, place.shape))} in the model that config.json describes. Copy the folder again."
        )


def _check_activation(layer: LayerEntry) -> None:
    if layer.kind == "linear" and layer.activation.name == "none":
        raise NotNative(f"{layer.name} takes float activations (`activation.name=none`)")


def _check_dense(place: Place, manifest: Manifest) -> set[str]:
    """Check a module that is not packed and return the names of its tensors."""
    weight, bias = f"{place.name}.weight", bias_name(place.name)
    _check_shape(weight, manifest, place.shape)
    if place.kind != "linear" or bias not in manifest.tensors:
        return {weight}
    _check_shape(bias, manifest, place.shape[:1])
    return {weight, bias}


def _check_shape(name: str, manifest: Manifest, shape: tuple[int, ...]) -> None:
    entry = manifest.tensors.get(name)
    if entry is None:
        raise FormatError(f"The folder has no values for {name!r}. Export the model again.")
    if entry.shape != shape or entry.dtype not in _FLOATS:
        raise FormatError(
            f"{name} is {entry.dtype} {list(entry.shape)} in the manifest, and the model that config.json describes "
            f"needs {list(shape)} in {', '.join(_FLOATS)}. Copy the folder again."
        )
