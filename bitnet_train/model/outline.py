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
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from bitnet_train.gguf.file import open_gguf
from bitnet_train.gguf.magic import is_gguf
from bitnet_train.importers.gguf.metadata import read_metadata
from bitnet_train.importers.gguf.one_bit_weights import is_known, is_one_bit
from bitnet_train.importers.hf_bitnet import is_hf_bitnet
from bitnet_train.importers.load import CONFIG_FILES, LoadedModel, require_model, require_model_of_others, tiny_folder
from bitnet_train.importers.source import TINY, hub_id, looks_like_path
from bitnet_train.model.config_fields import drop_padding_beyond, num_layers, text_config
from bitnet_train.model.converted import empty_float, weight_files
from bitnet_train.model.quiet import quiet_transformers

_FEWEST_LAYERS = 2


def outline(source: str) -> LoadedModel | None:
    """Return the model without its values, in seconds however large it is; None where only `load` can tell.

    Raises ConversionError for adapters and for folders that this package wrote, FormatError for a damaged GGUF.
    """
    path = Path(source).expanduser()
    if is_gguf(path):
        return _of_gguf(source, path)
    folder = tiny_folder() if source == TINY else path if path.is_dir() else _config_folder(source)
    if folder is None:
        return None
    require_model_of_others(folder)
    has_weights = not path.is_dir() or all(file.is_file() for file in weight_files(folder))
    return _of_folder(source, folder) if has_weights and not is_hf_bitnet(folder) else None


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


def _of_folder(source: str, folder: Path) -> LoadedModel | None:
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if getattr(config, "quantization_config", None) is not None:
            return None
        drop_padding_beyond(config)
        return _outlined(source, config, tokenizer)
    except (
        Exception
    ):  # of any kind: transformers takes files apart without a look at them, and `load` says what is wrong
        return None


def _of_gguf(source: str, path: Path) -> LoadedModel | None:
    gguf = open_gguf(path)
    require_model(source, gguf)
    if is_one_bit(gguf) or not is_known(gguf):
        return None
    try:
        return _outlined(source, *read_metadata(gguf))
    except Exception:  # as above
        return None


def _outlined(source: str, config: Any, tokenizer: Any) -> LoadedModel:
    model = empty_float(config).eval()
    return LoadedModel(model, tokenizer, source, f"{type(model).__name__}, {model.num_parameters():,} parameters")


def _config_folder(source: str) -> Path | None:
    """Return the folder of a hub id without its weights."""
    if looks_like_path(source):
        return None
    try:
        return Path(snapshot_download(hub_id(source), allow_patterns=CONFIG_FILES, ignore_patterns=["*/*"]))
    except Exception:  # the http library behind huggingface_hub, and its errors, differ between versions
        return None
