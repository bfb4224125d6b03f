"""Load a pretrained model from where it is: bundled, a directory, a GGUF file, or the Hugging Face hub.

    tiny          the model inside this package
    DIRECTORY     a folder with config.json and safetensors
    FILE.gguf     dequantised to dense weights; rounded to bf16 values, so that what stays float is stored in two bytes
    OWNER/NAME    a hub id, from the local cache or the network

The result is a plain causal LM in evaluation mode. A GGUF with 1-bit weights (`import_gguf`) and a folder with
`quant_method: bitnet` (`import_hf_bitnet`) give one that is 1-bit already, and the record of its layers.

No code from a repository is ever run, and weights come from safetensors only, never from pickles. The structure of a
file is checked before a reader that trusts it opens it. transformers leaves a model from GGUF marked as quantised,
which breaks `.float()` and saving; the marks are removed here.
"""

from __future__ import annotations

import json
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from importlib import import_module, resources
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import ConversionError
from bitnet_train.model.converted import RECORD_FILE, ConversionRecord, weight_files
from bitnet_train.model.gguf_file import open_gguf
from bitnet_train.model.gguf_generation import restore_gguf_generation
from bitnet_train.model.gguf_metadata import check_sizes, restore_pre_tokenizer
from bitnet_train.model.import_gguf import import_gguf, is_one_bit
from bitnet_train.model.import_hf_bitnet import import_hf_bitnet, is_hf_bitnet
from bitnet_train.quant.scheme import ActivationScheme

TINY = "tiny"
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_ALLOWED = "Allowed: `tiny`, a directory with config.json, a *.gguf file, or a hub id such as owner/name."


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, its tokenizer, and where it came from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str
    description: str
    record: ConversionRecord | None = None
    """The 1-bit layers of a model that had them in its file; None for a float model."""


def load_pretrained(source: str, *, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """Load model and tokenizer from `source`, see the module docstring.

    1-bit layers are float32 whatever `dtype` says, with int8 activations.

    Raises ConversionError when nothing can be loaded from it (saying what was tried), FormatError for damaged files and
    for 1-bit weights that cannot be kept exactly.
    """
    path = Path(source).expanduser()
    if source == TINY:
        return _from_folder(source, tiny_folder(), {}, dtype)
    if path.suffix == ".gguf":
        return _from_gguf(source, path, dtype)
    if path.is_dir():
        return _from_directory(source, path, dtype)
    if _looks_like_path(source, path):
        raise _no_directory(source, path)
    return _from_directory(source, _snapshot(source), dtype)


def load_mapped(source: str) -> LoadedModel:
    """Open a float model with parameters that lie in its mapped files, in their dtype: it may be larger than memory.

    Rows in a mapped file are not aligned, so float sums may round differently: copy what is computed with.

    Raises ConversionError for a GGUF file, for a model that is 1-bit already, and as `load_pretrained` does.
    """
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        raise ConversionError(
            f"`model.source={source}`: weights of a GGUF cannot be mapped, they have to be dequantised. Give the "
            "Hugging Face folder, or, where the model fits into memory, train with `blockwise=on`."
        )
    if source != TINY and not path.is_dir():
        if _looks_like_path(source, path):
            raise _no_directory(source, path)
        path = _snapshot(source)
    folder = tiny_folder() if source == TINY else path
    _require_model_of_others(folder)
    if is_hf_bitnet(folder):
        raise ConversionError(f"`model.source={source}` is 1-bit already. Give the float model it was made from.")
    weight_files(folder)
    return _from_folder(source, folder, {}, "auto")


def tiny_folder() -> Path:
    """The folder of the bundled model. Raises ConversionError when this installation lacks it."""
    folder = Path(str(resources.files("bitnet_train") / "assets" / TINY))
    if not (folder / "config.json").is_file():
        raise ConversionError(
            f"`model.source=tiny`: the bundled model is missing from this installation ({folder}). "
            "Reinstall bitnet-train."
        )
    return folder


def _no_directory(source: str, path: Path) -> ConversionError:
    return ConversionError(f"`model.source={source}`: there is no such directory ({path.absolute()}). {_ALLOWED}")


def _snapshot(source: str) -> Path:
    """Fetch the few files of a hub id that matter, or find them in the cache; return their folder."""
    try:
        return Path(snapshot_download(source, allow_patterns=_HUB_FILES, ignore_patterns=["*/*"]))
    except Exception as error:  # the http library behind huggingface_hub, and its errors, differ between versions
        raise _cannot_load(source, "as a hub id (neither from the cache nor from huggingface.co)", error) from error


def _from_directory(source: str, folder: Path, dtype: torch.dtype) -> LoadedModel:
    _require_model_of_others(folder)
    if is_hf_bitnet(folder):
        return _one_bit(source, *import_hf_bitnet(folder, ActivationScheme(), dtype))
    weight_files(folder)  # transformers follows `../` in an index
    return _from_folder(source, folder, {}, dtype)


def _one_bit(
    source: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, record: ConversionRecord
) -> LoadedModel:
    description = f"{_describe(model)}, {record.describe()}"
    return LoadedModel(model, tokenizer, source, description, record)


def _from_folder(source: str, place: Path, extra: dict[str, Any], dtype: torch.dtype | str) -> LoadedModel:
    is_gguf = "gguf_file" in extra
    # transformers draws a bar over the tensors of a GGUF that no setting of its own switches off
    silenced = redirect_stderr(StringIO()) if is_gguf else nullcontext()
    try:
        with silenced:
            model = AutoModelForCausalLM.from_pretrained(
                place, dtype=dtype, trust_remote_code=False, use_safetensors=None if is_gguf else True, **extra
            )
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **extra)
    except Exception as error:  # of any kind: transformers takes files apart without a look at them
        raise _cannot_load(source, f"from {place}", error) from error
    _require_dense(source, model, is_gguf=is_gguf)
    return LoadedModel(model.eval(), tokenizer, source, _describe(model))


def _cannot_load(source: str, tried: str, error: Exception) -> ConversionError:
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    return ConversionError(f"`model.source={source}` cannot be loaded {tried}: {reason}. {_ALLOWED}")


def _from_gguf(source: str, path: Path, dtype: torch.dtype) -> LoadedModel:
    if not path.is_file():
        raise ConversionError(f"`model.source={source}`: there is no such file ({path.absolute()}). {_ALLOWED}")
    gguf = open_gguf(path)
    if not _has_gguf_package():
        raise ConversionError(
            f"`model.source={source}`: reading a GGUF needs the package `gguf`. Install it: "
            "`pip install 'bitnet-train[gguf]'`."
        )
    if is_one_bit(gguf):
        model, tokenizer, record = import_gguf(gguf, ActivationScheme(), dtype)
        restore_gguf_generation(model, tokenizer, gguf)
        return _one_bit(source, model, tokenizer, record)
    check_sizes(gguf)
    loaded = _from_folder(source, path.parent, {"gguf_file": path.name}, torch.float32)
    restore_pre_tokenizer(loaded.tokenizer, gguf)
    restore_gguf_generation(loaded.model, loaded.tokenizer, gguf)
    _round_to_bfloat16(loaded.model)
    nn.Module.to(loaded.model, dtype)
    return loaded


def _has_gguf_package() -> bool:
    try:
        import_module("gguf")
    except ImportError:
        return False
    return True


def _require_model_of_others(folder: Path) -> None:
    """Refuse the folders that this package itself writes."""
    if (folder / RECORD_FILE).is_file():
        raise ConversionError(
            f"`model.source={folder}` is a merged 1-bit model: it has no float weights to convert. Open it with "
            "`bitnet_train.model.converted.load_converted`, or train on from it with `bitnet-train run RECIPE "
            "model.source=FOLDER`."
        )
    manifest = folder / "manifest.json"
    if manifest.is_file() and _is_packed_manifest(manifest):
        raise ConversionError(
            f"`model.source={folder}` is a packed 1-bit artefact: it has no float weights to convert. Use it with "
            "`bitnet_train.load`, or train on from it with `bitnet_train.exporters.reopened.reopen_packed`, as "
            "`bitnet-train run RECIPE model.source=FOLDER` does."
        )
    if not (folder / "config.json").is_file():
        raise ConversionError(f"`model.source={folder}` has no config.json, so it holds no model. {_ALLOWED}")


def _is_packed_manifest(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and str(content.get("format", "")).startswith("planes_")


def _looks_like_path(source: str, path: Path) -> bool:
    return path.is_absolute() or path.exists() or source.startswith((".", "~")) or source.count("/") > 1


def _require_dense(source: str, model: PreTrainedModel, *, is_gguf: bool) -> None:
    """Clear the marks that a GGUF leaves; refuse a model that is quantised in another way."""
    marked = getattr(model.config, "quantization_config", None) is not None
    if marked and not is_gguf:
        raise ConversionError(
            f"`model.source={source}` is quantised in a way that is not read here (config.quantization_config). Give "
            "the float model, or one with `quant_method: bitnet`."
        )
    for owner, mark in ((model, "hf_quantizer"), (model, "is_quantized"), (model.config, "quantization_config")):
        if mark in vars(owner):
            delattr(owner, mark)


def _round_to_bfloat16(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))


def _describe(model: PreTrainedModel) -> str:
    return f"{type(model).__name__}, {model.num_parameters():,} parameters"
