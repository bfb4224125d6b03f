"""`load(folder)`: a Hugging Face model that runs on packed weights, ready for `.generate()`.

The model is built without memory for its parameters (they are on the `meta` device), the packed layers are put in
place as `PackedLinear` or `PackedEmbedding`, int8 tables as `Int8Embedding` and `Int8Linear` (a tied pair shares its
memory), and every other tensor is read from the folder and widened to float32, which is exact. So the peak is the
packed model plus one tensor, and no float weight of a packed layer or a table ever exists.

Every parameter gets memory of its own from torch's allocator, never a view of the mapped file: float kernels of the
BLAS libraries may round differently for differently aligned arrays, and a packed model must give the very logits of
the trained one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bitnet_train.errors import FormatError, KernelError
from bitnet_train.model.generation_settings import GENERATION_FILE, restore_generation_settings
from bitnet_train.model.int8_table import Int8Embedding, Int8Linear, Int8Table
from bitnet_train.model.packed_embedding import PackedEmbedding
from bitnet_train.model.packed_linear import PackedLinear
from bitnet_train.packed.manifest import LayerEntry, Manifest, TableEntry
from bitnet_train.packed.names import CONFIG_MARKS, codes_name
from bitnet_train.packed.reader import WeightsReader, open_weights, read_manifest, verify_files
from bitnet_train.progress import track
from bitnet_train.quant.scheme import LayerKind
from bitnet_train.rust_panic import panics_as_errors

_MIXED = "Files of two folders were mixed, or one was edited: copy the folder again."
SAFE_ATTENTION = ("eager", "sdpa")  # what every CPU build of torch has; another kind is left to transformers' default


def load(path: str | Path, *, verify: bool = True, device: str | torch.device = "cpu") -> PreTrainedModel:
    """Load the packed folder at `path` as a float32 Hugging Face causal LM in evaluation mode.

    Parameters
    ----------
    path
        A folder that `export_packed` wrote.
    verify
        Check the hash of every file first; False trusts the folder and reads each byte once instead of twice.
    device
        Where the model goes; the kernels run on the CPU.

    Raises
    ------
    FormatError
        When `path` is not a packed folder, is damaged, or was written by a newer version. Says what to do.

    Examples
    --------
    >>> import bitnet_train as bt
    >>> original = bt.load_pretrained("tiny")
    >>> _ = bt.convert(original.model, "binary_row")
    >>> _ = bt.export(original.model, original.tokenizer, "packed_to_load")
    >>> model = bt.load("packed_to_load")
    >>> ids = original.tokenizer("import os", return_tensors="pt")["input_ids"]
    >>> model.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False).shape[1] - ids.shape[1]
    4
    """
    folder = Path(path)
    manifest = verify_files(folder) if verify else read_manifest(folder)
    config = _read_config(folder)
    model = _empty_model(config, manifest)
    check_shapes(model, manifest)
    with open_weights(folder, manifest) as weights:
        fill_model(model, manifest, weights)
    if GENERATION_FILE in manifest.files:
        restore_generation_settings(model, folder)
    nn.Module.to(model, device)
    return model.eval()


def check_shapes(model: PreTrainedModel, manifest: Manifest) -> None:
    """Raise FormatError unless the model, still with its own layers, has what the manifest calls packed."""
    if type(model).__name__ != manifest.model_class:
        raise FormatError(
            f"config.json describes a {type(model).__name__}, the manifest a {manifest.model_class}. {_MIXED}"
        )
    for layer in manifest.layers:
        shape = (layer.num_outputs, layer.num_inputs)
        _check_shape(_submodule(model, layer.name), layer.name, layer.kind, shape)
    for table in manifest.tables:
        shape = (table.num_rows, table.num_inputs)
        _check_shape(_submodule(model, table.name), table.name, table.kind, shape)


def fill_model(model: PreTrainedModel, manifest: Manifest, weights: WeightsReader) -> None:
    """Put packed layers, int8 tables and every other tensor into `model`, in memory of their own.

    Raises FormatError when a tensor is damaged, does not fit, or the folder lacks one that the model needs.
    """
    _put_the_rest(model, manifest, weights)
    for layer in track(manifest.layers, "Loading", len(manifest.layers)):
        _put_module(model, layer.name, read_layer(layer, weights))
    _put_tables(model, manifest, weights)
    _check_complete(model)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the packed folder at `path`; FormatError when it has none."""
    if "tokenizer_config.json" not in read_manifest(path).files:
        raise FormatError(f"{path} was exported without a tokenizer. Load the tokenizer of its base model instead.")
    try:
        with panics_as_errors():
            return AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of any kind: the library raises plain Exceptions
        raise FormatError(f"The tokenizer in {path} cannot be loaded: {error}. Export the model again.") from error


def _read_config(folder: Path) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a config from elsewhere can fail anywhere in the library's parsing
        raise FormatError(
            f"{folder / 'config.json'} cannot be used: {error}. Upgrade transformers if the architecture is newer than "
            "yours; otherwise copy the folder again."
        ) from error
    for mark in CONFIG_MARKS:  # how transformers finds its way here (`hf_quantizer.py`)
        vars(config).pop(mark, None)
    return config


def _empty_model(config: PreTrainedConfig, manifest: Manifest) -> PreTrainedModel:
    """Build the model with every parameter on the `meta` device and its buffers computed."""
    options: dict[str, Any] = {"dtype": torch.float32}
    if manifest.attention in SAFE_ATTENTION:
        options["attn_implementation"] = manifest.attention
    try:
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False, **options)
    except Exception as error:  # and one that parses can still describe no model
        raise FormatError(f"config.json describes no model that can be built: {error}. {_MIXED}") from error
    return model


def _put_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def read_layer(layer: LayerEntry, weights: WeightsReader) -> PackedLinear | PackedEmbedding:
    """Read one packed layer; a FormatError names it when its tensors do not fit together."""
    try:
        stored = weights.layer(layer)
        planes, scale = stored.planes, stored.scale.to(torch.float32)
        if layer.kind == "embedding":
            return PackedEmbedding.from_planes(planes, scale, layer.num_inputs, layer.scheme)
        return PackedLinear.from_planes(planes, scale, stored.bias, layer.num_inputs, layer.scheme, layer.activation)
    except (FormatError, KernelError, ValueError) as error:
        raise FormatError(f"{layer.name}: {error}") from error


def _put_tables(model: nn.Module, manifest: Manifest, weights: WeightsReader) -> None:
    kept: dict[str, Int8Table] = {}
    for table in manifest.tables:
        stored = manifest.stored_name(codes_name(table.name))
        module = _read_table(table, weights, kept.get(stored))
        kept.setdefault(stored, module)
        _put_module(model, table.name, module)


def _read_table(table: TableEntry, weights: WeightsReader, same: Int8Table | None) -> Int8Embedding | Int8Linear:
    """Read one int8 table, or take the memory of the `same` one that was read already."""
    try:
        if same is not None and table.kind == "linear":
            return Int8Linear.of(same, weights.bias(table))
        stored = weights.table(table)
        if table.kind == "embedding":
            return Int8Embedding.from_codes(stored.codes, stored.scale)
        return Int8Linear.from_codes(stored.codes, stored.scale, stored.bias)
    except ValueError as error:
        raise FormatError(f"{table.name}: {error}") from error


def _check_shape(module: nn.Module, name: str, kind: LayerKind, shape: tuple[int, int]) -> None:
    fits = type(module) is nn.Embedding if kind == "embedding" else not isinstance(module, nn.Embedding)
    if not fits:
        raise FormatError(
            f"{name} is of kind {kind} in the manifest and {type(module).__name__} in the model that config.json "
            f"describes. {_MIXED}"
        )
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or tuple(weight.shape) not in {shape, shape[::-1]}:  # Linear and Conv1D
        found = list(weight.shape) if isinstance(weight, Tensor) else "no weight"
        raise FormatError(
            f"{name} is {shape[0]} x {shape[1]} in the manifest and {found} in the model that config.json describes. "
            "Copy the folder again."
        )


def _put_the_rest(model: nn.Module, manifest: Manifest, weights: WeightsReader) -> None:
    packed = {f"{entry.name}." for entry in (*manifest.layers, *manifest.tables)}
    for name in manifest.tensors:
        prefix, _, leaf = name.rpartition(".")
        if f"{prefix}." in packed:
            continue
        tensor = weights.read(name)
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float32)
        _put_tensor(_submodule(model, prefix), leaf, tensor, name)
    for alias, name in manifest.tied.items():
        kept, _, kept_leaf = name.rpartition(".")
        prefix, _, leaf = alias.rpartition(".")
        if f"{prefix}." in packed:
            continue
        tensor = getattr(_submodule(model, kept), kept_leaf, None)
        if not isinstance(tensor, Tensor):
            raise FormatError(f"{alias} is tied to {name}, which is no tensor of the model. {_MIXED}")
        _put_tensor(_submodule(model, prefix), leaf, tensor, alias)


def _put_tensor(module: nn.Module, leaf: str, tensor: Tensor, name: str) -> None:
    """Put `tensor` where `module` has a parameter or buffer of this name and shape; the same object stays tied."""
    present = module._parameters.get(leaf)
    if present is None:
        present = module._buffers.get(leaf)
    if present is None or present.shape != tensor.shape:
        shape = "no such tensor" if present is None else f"{list(present.shape)}"
        raise FormatError(
            f"{name} has shape {list(tensor.shape)}, but the model that config.json describes has {shape}. "
            "Copy the folder again, or install the transformers version that the manifest names."
        )
    if leaf in module._parameters and not isinstance(tensor, nn.Parameter):
        tensor = nn.Parameter(tensor, requires_grad=False)
    setattr(module, leaf, tensor)


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise FormatError(
            f"{type(model).__name__} has no module {name!r}, which the manifest names. Install the transformers "
            "version that the manifest names, or export the model again."
        ) from error


def _check_complete(model: nn.Module) -> None:
    named = [*model.named_parameters(), *model.named_buffers()]
    empty = sorted(name for name, tensor in named if tensor.is_meta)
    if empty:
        raise FormatError(f"The folder has no values for {empty[0]!r}. Export the model again.")
