"""A converted model on disk: the Hugging Face folder of the float model with float32 latents, and how it was made.

    config.json  generation_config.json  tokenizer files   as `save_pretrained` writes them
    model.safetensors                                      every tensor under its own name; a tied tensor is stored once
    conversion.json                                        what was selected, the names and schemes of the layers

It holds the state between `merge` and `export`: loading gives the same codes, scales and logits bit for bit. Files are
written to a sibling folder that is renamed at the end, so a crash leaves no half-written folder under the final name.
A model larger than memory can be opened with `map_converted`; its weights may lie in several files, as
`model.safetensors.index.json` says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.convert import replace_layers
from bitnet_train.model.folder_names import INDEX_FILE, RECORD_FILE, WEIGHTS_FILE
from bitnet_train.model.generation_settings import restore_generation_settings, save_generation_settings
from bitnet_train.model.plan import describe_schemes
from bitnet_train.model.rounded_table import put_tables
from bitnet_train.model.saved_tensors import save_module
from bitnet_train.model.select import Selection
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Identity, Surrogate, surrogate_from_dict
from bitnet_train.whole import whole_folder

_SCHEMAS = (1, 2, 3)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class ConversionRecord:
    """What `convert` was asked and which layers it changed: enough to rebuild the modules."""

    layers: tuple[str, ...]
    weight: WeightScheme = field(default_factory=WeightScheme)
    """The scheme of every layer that `mixed` does not name."""
    activation: ActivationScheme = field(default_factory=ActivationScheme)
    surrogate: Surrogate = field(default_factory=Identity)
    selection: Selection = field(default_factory=Selection)
    mixed: Mapping[str, WeightScheme] = field(default_factory=dict)
    """Layers with a scheme of their own."""
    tables: tuple[str, ...] | None = None
    """Embedding and head that are int8 tables, everything else outside the layers bfloat16 (`model.rounded_table`);
    None: nothing outside the layers is rounded."""

    @property
    def is_rounded(self) -> bool:
        """Whether what is not 1-bit is rounded too, in training as on disk."""
        return self.tables is not None

    @classmethod
    def of_schemes(cls, schemes: Mapping[str, WeightScheme], weight: WeightScheme, **parts: Any) -> ConversionRecord:
        """The record of layers with these schemes, in model order; `weight` is the usual one."""
        mixed = {name: scheme for name, scheme in schemes.items() if scheme != weight}
        return cls(layers=tuple(schemes), weight=weight, mixed=mixed, **parts)

    @property
    def schemes(self) -> dict[str, WeightScheme]:
        """The scheme of every layer, in model order."""
        return {name: self.mixed.get(name, self.weight) for name in self.layers}

    def describe(self) -> str:
        """In a few words: `28 layers binary per row`, or of a mix each scheme with its layers."""
        words = describe_schemes(self.schemes.values())
        return words if len(set(self.schemes.values())) > 1 else f"{len(self.layers)} layers {words}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        parts = {key: getattr(self, key).to_dict() for key in ("selection", "weight", "activation", "surrogate")}
        whole = {"schema": 1, **parts, "layers": list(self.layers)}
        if self.mixed:  # schema 2 only where it is needed: an earlier version would give every layer one scheme
            whole |= {"schema": 2, "mixed": {name: scheme.to_dict() for name, scheme in self.mixed.items()}}
        if self.tables is not None:  # and schema 3: an earlier version would compute the head in floats
            whole |= {"schema": 3, "tables": list(self.tables)}
        return whole

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ConversionRecord:
        """Inverse of `to_dict`. Raises FormatError when the record is of a newer schema or lacks a part."""
        if data.get("schema") not in _SCHEMAS:
            raise FormatError(
                f"{RECORD_FILE} has schema {data.get('schema')}; this version reads schemas "
                f"{', '.join(map(str, _SCHEMAS))}. Update bitnet_train."
            )
        try:
            return cls(
                layers=tuple(data["layers"]),
                weight=WeightScheme.from_dict(data["weight"]),
                activation=ActivationScheme.from_dict(data["activation"]),
                surrogate=surrogate_from_dict(data["surrogate"]),
                selection=Selection.from_dict(data["selection"]),
                mixed={name: WeightScheme.from_dict(scheme) for name, scheme in data.get("mixed", {}).items()},
                tables=tuple(data["tables"]) if "tables" in data else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{RECORD_FILE} is damaged: {error}. Convert the model again.") from error


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
    directory: str | Path,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, ConversionRecord]:
    """The model in float32 and evaluation mode, its tokenizer if one was saved, and the record.

    Raises FormatError when the folder is not one of ours, or its tensors do not fit the model.
    """
    folder = Path(directory)
    record = read_record(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    _replace(model, record)
    _fill(model, folder, mapped=False)
    restore_generation_settings(model, folder)
    return model.eval(), _tokenizer(folder), record


def map_converted(
    directory: str | Path,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None, ConversionRecord]:
    """Like `load_converted`, with parameters that lie in the mapped files: read when used, and dropped under pressure.

    To export, not to compute with: rows in a mapped file are not aligned, and float sums may round differently.
    """
    folder = Path(directory)
    record = read_record(folder)
    model = empty_converted(AutoConfig.from_pretrained(folder, trust_remote_code=False), record)
    _fill(model, folder, mapped=True)
    restore_generation_settings(model, folder)
    return model.eval(), _tokenizer(folder), record


def empty_converted(config: PreTrainedConfig, record: ConversionRecord) -> PreTrainedModel:
    """The converted model of a config with parameters that have shapes and no memory."""
    model = empty_float(config)
    _replace(model, record)
    return model


def empty_float(config: PreTrainedConfig) -> PreTrainedModel:
    """The float model of a config with parameters that have shapes and no memory, tied ones shared."""
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    _share_tied(model)
    return model


def _replace(model: PreTrainedModel, record: ConversionRecord) -> None:
    replace_layers(model, record.schemes, record.activation, record.surrogate)
    put_tables(model, record.tables or ())


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
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{index} cannot be read: {error}. Copy the folder again.") from error
    foreign = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if foreign or not names:
        raise FormatError(f"{index} names {foreign[0] if foreign else 'nothing'!r}; only files beside it are read.")
    return [folder / name for name in names]


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    has_tokenizer = any((folder / name).is_file() for name in _TOKENIZER_FILES)
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False) if has_tokenizer else None


def read_record(directory: str | Path) -> ConversionRecord:
    """The record of a folder. Raises FormatError when there is none, or it cannot be read."""
    path = Path(directory) / RECORD_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(
            f"{directory} is not a converted model: {RECORD_FILE} cannot be read ({error}). "
            "Give a folder that `save_converted` (the convert, train or merge stage) wrote."
        ) from error
    return ConversionRecord.from_dict(data)


def _require_savable(model: nn.Module, record: ConversionRecord) -> None:
    found = {name for name in dict(model.named_modules()) if name in bit_layers(model)}
    if found != set(record.layers):
        differing = sorted(found ^ set(record.layers))
        raise ConversionError(
            f"the record does not fit {type(model).__name__}: {len(differing)} layers differ, such as {differing[0]}. "
            "Merge an adapter first, and save with the record of the same conversion."
        )
