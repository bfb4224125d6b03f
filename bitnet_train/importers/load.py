"""Load a pretrained model from where it is: bundled, a directory, a GGUF file, or the Hugging Face hub.

    tiny          the model inside this package
    DIRECTORY     a folder with config.json and safetensors
    FILE          a GGUF, whatever it is called: dequantised, rounded to bf16 values, so that what stays float is
                  stored in two bytes
    OWNER/NAME    a hub id, from the local cache or the network, where nothing is called so here; hub:OWNER/NAME is
                  never anything else (`source`)

The result is a plain causal LM in evaluation mode. A GGUF with 1-bit weights (`import_gguf`) and a folder with
`quant_method: bitnet` (`import_hf_bitnet`) give one that is 1-bit already, and the record of its layers.

No code from a repository is ever run, and weights come from safetensors only, never from pickles. The structure of a
file is checked before a reader that trusts it opens it. Every tensor of a model has to come from its files, and every
tensor of the files to have a place in the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.gguf.file import GgufFile, open_gguf
from bitnet_train.gguf.magic import is_gguf
from bitnet_train.importers.float_folder import ALLOWED, cannot_load, read_folder
from bitnet_train.importers.gguf.float_weights import import_other_gguf
from bitnet_train.importers.gguf.generation import restore_gguf_generation
from bitnet_train.importers.gguf.one_bit_weights import import_float_gguf, import_gguf, is_known, is_one_bit
from bitnet_train.importers.hf_bitnet import import_hf_bitnet, is_hf_bitnet
from bitnet_train.importers.source import TINY, hub_id, looks_like_path
from bitnet_train.model.converted import RECORD_FILE, ConversionRecord, weight_files
from bitnet_train.quant.scheme import ActivationScheme

ADAPTER_FILE = "adapter_config.json"
CONFIG_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
_HUB_FILES = [*CONFIG_FILES, "*.safetensors"]


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
        return _float(source, *read_folder(source, tiny_folder(), dtype))
    if is_gguf(path):
        return _from_gguf(source, path, dtype)
    if path.is_dir():
        return _from_directory(source, path, dtype)
    if path.is_file():
        raise ConversionError(f"`model.source={source}` is a file, but no GGUF. {ALLOWED}")
    if looks_like_path(source):
        raise _no_directory(source, path)
    return _from_directory(source, _snapshot(source), dtype)


def load_mapped(source: str) -> LoadedModel:
    """Open a float model with parameters that lie in its mapped files, in their dtype: it may be larger than memory.

    Rows in a mapped file are not aligned, so float sums may round differently: copy what is computed with.

    Raises ConversionError for a GGUF file, for a model that is 1-bit already, and as `load_pretrained` does.
    """
    path = Path(source).expanduser()
    if is_gguf(path):
        raise ConversionError(
            f"`model.source={source}`: weights of a GGUF cannot be mapped, they have to be dequantised. Give the "
            "Hugging Face folder, or, where the model fits into memory, train with `blockwise=on`."
        )
    if source != TINY and not path.is_dir():
        if looks_like_path(source):
            raise _no_directory(source, path)
        path = _snapshot(source)
    folder = tiny_folder() if source == TINY else path
    require_model_of_others(folder)
    if is_hf_bitnet(folder):
        raise ConversionError(f"`model.source={source}` is 1-bit already. Give the float model it was made from.")
    weight_files(folder)
    return _float(source, *read_folder(source, folder, "auto"))


def source_bytes(source: str) -> int | None:
    """Bytes of a model as it was given: a GGUF file, the weights of a folder; None where they are not at hand.

    Any folder of weights counts, a packed or a merged one too; a hub id is looked up in the local cache alone.
    """
    path = tiny_folder() if source == TINY else Path(source).expanduser()
    if path.is_file():
        return path.stat().st_size
    try:
        folder = path if path.is_dir() else Path(snapshot_download(hub_id(source), local_files_only=True))
    except Exception:  # of any kind, see `_snapshot`; a size is not worth a run
        return None
    files = [file for file in folder.glob("*.safetensors") if file.is_file()]
    return sum(file.stat().st_size for file in files) or None


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
    return ConversionError(f"`model.source={source}`: there is no such directory ({path.absolute()}). {ALLOWED}")


def _snapshot(source: str) -> Path:
    """Fetch the few files of a hub id that matter, or find them in the cache; return their folder."""
    try:
        return Path(snapshot_download(hub_id(source), allow_patterns=_HUB_FILES, ignore_patterns=["*/*"]))
    except Exception as error:  # the http library behind huggingface_hub, and its errors, differ between versions
        raise cannot_load(source, "as a hub id (neither from the cache nor from huggingface.co)", error) from error


def _from_directory(source: str, folder: Path, dtype: torch.dtype) -> LoadedModel:
    require_model_of_others(folder)
    if is_hf_bitnet(folder):
        return _one_bit(source, *import_hf_bitnet(folder, ActivationScheme(), dtype))
    weight_files(folder)  # transformers follows `../` in an index
    return _float(source, *read_folder(source, folder, dtype))


def _one_bit(
    source: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, record: ConversionRecord
) -> LoadedModel:
    description = f"{_describe(model)}, {record.describe()}"
    return LoadedModel(model, tokenizer, source, description, record)


def _from_gguf(source: str, path: Path, dtype: torch.dtype) -> LoadedModel:
    if not path.is_file():
        raise ConversionError(f"`model.source={source}`: there is no such file ({path.absolute()}). {ALLOWED}")
    gguf = open_gguf(path)
    require_model(source, gguf)
    if not _has_gguf_package():
        raise ConversionError(
            f"`model.source={source}`: reading a GGUF needs the package `gguf`. Install it: "
            "`pip install 'bitnet-train[gguf]'`."
        )
    if is_one_bit(gguf):
        model, tokenizer, record = import_gguf(gguf, ActivationScheme(), dtype)
        restore_gguf_generation(model, tokenizer, gguf)
        return _one_bit(source, model, tokenizer, record)
    model, tokenizer = (import_float_gguf if is_known(gguf) else import_other_gguf)(gguf, dtype)
    restore_gguf_generation(model, tokenizer, gguf)
    return _float(source, model, tokenizer)


def _float(source: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    return LoadedModel(model, tokenizer, source, _describe(model))


def require_model(source: str, gguf: GgufFile) -> None:
    """Refuse the GGUF files that hold something else."""
    kind = gguf.metadata.get("general.type", "model")
    if kind == "adapter":
        raise ConversionError(
            f"`model.source={source}` is a LoRA adapter, not a model. Merge it into the model it belongs to first: "
            "`llama-export-lora -m MODEL.gguf --lora ADAPTER.gguf -o MERGED.gguf` of llama.cpp."
        )
    if kind != "model":
        raise FormatError(f"`model.source={source}` holds no language model: its `general.type` is {kind!r}.")


def _has_gguf_package() -> bool:
    try:
        import_module("gguf")
    except ImportError:
        return False
    return True


def require_model_of_others(folder: Path) -> None:
    """Refuse the folders that this package itself writes, and adapters, which transformers would put in by itself."""
    if (folder / ADAPTER_FILE).is_file():
        raise ConversionError(_adapter_message(folder))
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
            "`bitnet_train.load`, or train on from it with `bitnet_train.importers.packed.reopen_packed`, as "
            "`bitnet-train run RECIPE model.source=FOLDER` does."
        )
    if not (folder / "config.json").is_file():
        raise ConversionError(f"`model.source={folder}` has no config.json, so it holds no model. {ALLOWED}")


def _adapter_message(folder: Path) -> str:
    try:
        base = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    of = f", made for {base}" if base else ""
    return (
        f"`model.source={folder}` is a PEFT adapter{of}, not a model. Merge it first, and give the merged folder:\n"
        "    from peft import AutoPeftModelForCausalLM\n"
        "    from transformers import AutoTokenizer\n"
        f"    AutoPeftModelForCausalLM.from_pretrained({str(folder)!r}).merge_and_unload().save_pretrained('merged')\n"
        f"    AutoTokenizer.from_pretrained({str(base or folder)!r}).save_pretrained('merged')"
    )


def _is_packed_manifest(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and str(content.get("format", "")).startswith("planes_")


def _describe(model: PreTrainedModel) -> str:
    return f"{type(model).__name__}, {model.num_parameters():,} parameters"
