"""A model as its files describe it, no weight opened: layers and shapes from the config alone, and the tokenizer.

    outline     every parameter on the meta device: plans, counts and sizes of memory are those of the loaded model
    stand_in    a few layers of it with random weights: what depends on the architecture alone can be tried on them

A file whose weights say which layers are 1-bit has no outline, nor has one that cannot be read: `load` says why.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from bitnet_train.errors import ConversionError
from bitnet_train.gguf.file import open_gguf
from bitnet_train.importers.found import Found, require_model
from bitnet_train.importers.gguf.metadata import read_metadata
from bitnet_train.importers.gguf.one_bit_weights import is_known, is_one_bit
from bitnet_train.importers.hf_bitnet import is_hf_bitnet
from bitnet_train.importers.load import CONFIG_FILES, LoadedModel, folder_of_others, require_language_model, tiny_folder
from bitnet_train.model.config_fields import drop_padding_beyond, num_layers, text_config
from bitnet_train.model.converted import empty_float, weight_files
from bitnet_train.model.quiet import quiet_transformers
from bitnet_train.rust_panic import panics_as_errors

_FEWEST_LAYERS = 2


def outline(source: str) -> LoadedModel | None:
    """Return the model without its values, in seconds however large it is; None where only `load` can tell.

    Raises ConversionError for what is no model, FormatError for a damaged GGUF.
    """
    found = require_model(source)
    if found.kind == "gguf":
        return _of_gguf(source, found.path)
    if found.kind in ("run", "merged", "packed"):
        return None
    if found.kind == "hub":
        return _of_hub(source, found)
    folder = tiny_folder() if found.kind == "tiny" else folder_of_others(source, found)
    has_weights = all(file.is_file() for file in weight_files(folder))
    return _of_folder(source, folder) if has_weights else None


def is_outline(model: PreTrainedModel) -> bool:
    """Whether a model has shapes and no values."""
    return any(parameter.is_meta for parameter in model.parameters())


def stand_in(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the config of an outline with random weights, and as few layers as show every kind of them."""
    config = deepcopy(model.config)
    text, kinds = text_config(config), getattr(text_config(config), "layer_types", None)
    few = max(_FEWEST_LAYERS, *(1 + kinds.index(kind) for kind in set(kinds))) if kinds else _FEWEST_LAYERS
    few = min(few, num_layers(config))
    if kinds:
        text.layer_types = kinds[:few]
    text.num_hidden_layers = few
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return made.eval()


def _of_hub(source: str, found: Found) -> LoadedModel | None:
    """Look at the folder of a hub id without its weights."""
    try:
        folder = folder_of_others(source, found, CONFIG_FILES)
    except ConversionError:
        return None
    return _of_folder(source, folder)


def _of_folder(source: str, folder: Path) -> LoadedModel | None:
    if is_hf_bitnet(folder):
        return None
    try:
        with quiet_transformers(), panics_as_errors():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if getattr(config, "quantization_config", None) is not None:
            return None
        drop_padding_beyond(config)
        return _outlined(source, config, tokenizer)
    except Exception:  # of any kind: transformers takes files apart without a look, and `load` says what is wrong
        return None


def _of_gguf(source: str, path: Path) -> LoadedModel | None:
    gguf = open_gguf(path)
    require_language_model(source, gguf)
    if is_one_bit(gguf) or not is_known(gguf):
        return None
    try:
        return _outlined(source, *read_metadata(gguf))
    except Exception:  # as above
        return None


def _outlined(source: str, config: Any, tokenizer: Any) -> LoadedModel:
    model = empty_float(config).eval()
    return LoadedModel(model, tokenizer, source, f"{type(model).__name__}, {model.num_parameters():,} parameters")
