"""A converted model on disk: the Hugging Face folder of the float model with float32 latents, and how it was made.

    config.json  generation_config.json  tokenizer files   as `save_pretrained` writes them
    model.safetensors                                      every tensor under its own name; a tied tensor is stored once
    conversion.json                                        what was selected, the names and schemes of the layers

It holds the state between `merge` and `export`: loading gives the same codes, scales and logits bit for bit. Files are
written to a sibling folder that is renamed at the end, so a crash leaves no half-written folder under the final name.
A model larger than memory can be opened `mapped`; its weights may lie in several files, as
`model.safetensors.index.json` says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.json_text import parse_json
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.conversion_record import ConversionRecord, read_record
from bitnet_train.model.convert import replace_layers
from bitnet_train.model.folder_names import INDEX_FILE, RECORD_FILE, WEIGHTS_FILE
from bitnet_train.model.generation_settings import restore_generation_settings, save_generation_settings
from bitnet_train.model.rounded_table import put_tables
from bitnet_train.model.saved_tensors import save_module
from bitnet_train.rust_panic import panics_as_errors
from bitnet_train.whole import whole_folder

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def save_converted(
    model: PreTrainedModel,
    record: ConversionRecord,
    directory: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    replace: bool = False,
) -> None:
    """Write a merged model (BitLinear inside, no adapter) to `directory`, which must not exist or be empty.

    With `replace` an earlier model there is given up, once the new one is whole. Raises ConversionError when the record
    does not name exactly the model's BitLinear layers (an adapter is still attached, or the record is of another model)
    or the directory is taken.
    """
    _require_savable(model, record)
    with converted_folder(directory, model, record, tokenizer, replace=replace) as partial:
        save_module(model, partial / WEIGHTS_FILE, {"format": "pt"})


@contextmanager
def converted_folder(
    directory: str | Path,
    model: PreTrainedModel,
    record: ConversionRecord,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    replace: bool = False,
) -> Iterator[Path]:
    """Give a folder with everything but the weights, which the caller writes; it gets its name when that succeeded.

    Raises ConversionError when the directory is taken; with `replace` it is given up for the new one at the end.
    """
    target = Path(directory)
    if not replace and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConversionError(f"{target} exists and is not empty. Choose another directory or remove it.")
    with whole_folder(target) as partial:
        model.config.save_pretrained(partial)
        save_generation_settings(model, partial)
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        (partial / RECORD_FILE).write_text(json.dumps(record.to_dict(), indent=2) + "\n", encoding="utf-8")
        yield partial


def load_converted(
    directory: str | Path, *, mapped: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, ConversionRecord]:
    """The model in float32 and evaluation mode, its tokenizer if one was saved, and the record.

    With `mapped` its parameters lie in the mapped files: read when used, and dropped under pressure. That is to export,
    not to compute with: rows in a mapped file are not aligned, and float sums may round differently.

    Raises FormatError when the folder is not one of ours, or its tensors do not fit the model.
    """
    folder = Path(directory)
    record = read_record(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model = empty_converted(config, record) if mapped else _replaced(_float(config), record)
    _fill(model, folder, mapped=mapped)
    restore_generation_settings(model, folder)
    return model.eval(), _tokenizer(folder), record


def empty_converted(config: PreTrainedConfig, record: ConversionRecord) -> PreTrainedModel:
    """The converted model of a config with parameters that have shapes and no memory."""
    return _replaced(empty_float(config), record)


def empty_float(config: PreTrainedConfig) -> PreTrainedModel:
    """The float model of a config with parameters that have shapes and no memory, tied ones shared."""
    with init_empty_weights(include_buffers=False):
        model = _float(config)
    _share_tied(model)
    return model


def _float(config: PreTrainedConfig) -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _replaced(model: PreTrainedModel, record: ConversionRecord) -> PreTrainedModel:
    """Put the record's layers and tables in the place of float ones; the same model is returned."""
    replace_layers(model, record.schemes, record.activation, record.surrogate)
    put_tables(model, record.tables or (), record.stored_tables)
    return model


def _fill(model: PreTrainedModel, folder: Path, *, mapped: bool) -> None:
    """Give every parameter its values from the files: a copy, or, `mapped`, the tensor that lies there."""
    stored: set[str] = set()
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dictionary
                result = model.load_state_dict(tensors, strict=False, assign=mapped)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise FormatError(f"{path} does not fit the model described beside it: {error}") from error
        if result.unexpected_keys:
            raise FormatError(f"{path} has {result.unexpected_keys[0]!r}, which the model described beside it has not.")
        stored |= tensors.keys()
    if mapped:
        _share_tied(model)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    filled = {id(parameter) for name, parameter in parameters.items() if name in stored}
    missing = [name for name, parameter in parameters.items() if id(parameter) not in filled]
    if missing:
        raise FormatError(f"{folder} has no values for {missing[0]!r}. Merge the run again.")


def _share_tied(model: PreTrainedModel) -> None:
    """Give both names of a tied tensor the one that was stored, under whichever name it was."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for alias, name in getattr(model, "all_tied_weights_keys", {}).items():
        kept, other = (alias, name) if parameters[name].is_meta else (name, alias)
        module, _, leaf = other.rpartition(".")
        setattr(model.get_submodule(module), leaf, parameters[kept])


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a Hugging Face folder: one, or those that its index names.

    Raises FormatError for an index that is damaged, or names a file that is not a plain one in the same folder.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        return [folder / WEIGHTS_FILE]
    try:
        names = sorted({str(name) for name in parse_json(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{index} cannot be read: {error}. Copy the folder again.") from error
    foreign = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if foreign or not names:
        raise FormatError(f"{index} names {foreign[0] if foreign else 'nothing'!r}; only files beside it are read.")
    return [folder / name for name in names]


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    has_tokenizer = any((folder / name).is_file() for name in _TOKENIZER_FILES)
    if not has_tokenizer:
        return None
    try:
        with panics_as_errors():
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of any kind: the library raises plain Exceptions
        raise FormatError(f"The tokenizer in {folder} cannot be loaded: {error}. Copy the folder again.") from error


def _require_savable(model: nn.Module, record: ConversionRecord) -> None:
    found = {name for name in dict(model.named_modules()) if name in bit_layers(model)}
    if found != set(record.layers):
        differing = sorted(found ^ set(record.layers))
        raise ConversionError(
            f"the record does not fit {type(model).__name__}: {len(differing)} layers differ, such as {differing[0]}. "
            "Merge an adapter first, and save with the record of the same conversion."
        )
