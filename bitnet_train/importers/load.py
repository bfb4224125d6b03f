"""The one door in: whatever names a model (`importers.found` says how) becomes a model, and says what it was.

A float model comes as a plain causal LM in evaluation mode. A GGUF with 1-bit weights, a folder with `quant_method:
bitnet`, a packed and a merged folder of ours give one that is 1-bit already, and the record of its layers; a run gives
its merged model, and before there is one what it packed. A GGUF is dequantised and rounded to bf16 values, so that what
stays float is stored in two bytes.

No code from a repository is ever run, and weights come from safetensors only, never from pickles. The structure of a
file is checked before a reader that trusts it opens it. Every tensor of a model has to come from its files, and every
tensor of the files to have a place in the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module, resources
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import snapshot_download
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.gguf.file import GgufFile, open_gguf
from bitnet_train.importers.float_folder import cannot_load, read_folder
from bitnet_train.importers.found import ADAPTER_FILE, ALLOWED, HF_FILE, Found, find_model, require_model
from bitnet_train.importers.gguf.float_weights import import_other_gguf
from bitnet_train.importers.gguf.generation import restore_gguf_generation
from bitnet_train.importers.gguf.one_bit_weights import import_float_gguf, import_gguf, is_known, is_one_bit
from bitnet_train.importers.hf_bitnet import import_hf_bitnet, is_hf_bitnet
from bitnet_train.importers.packed import reopen_packed
from bitnet_train.importers.source import TINY, hub_id
from bitnet_train.json_text import parse_json
from bitnet_train.model.converted import ConversionRecord, load_converted, weight_files
from bitnet_train.quant.scheme import ActivationScheme
from bitnet_train.word_as_path import is_file, is_folder, link_out, path_of

CARD_NAME = "README.md"  # which says the licence
CONFIG_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
_HUB_FILES = [*CONFIG_FILES, "*.safetensors", CARD_NAME]
MODELS_OF_RUN = ("merged", "artefact")  # the first that is there is the model of a run


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

    1-bit layers are float32 whatever `dtype` says, with int8 activations where the file does not say.

    Raises ConversionError when nothing can be loaded from it (saying what was tried), FormatError for damaged files and
    for 1-bit weights that cannot be kept exactly.

    Examples
    --------
    >>> import bitnet_train as bt
    >>> original = bt.load_pretrained("tiny")  # a folder, a GGUF file or a hub id does as well
    >>> original.description
    'LlamaForCausalLM, 4,458,752 parameters'
    """
    loaded = _load(source, require_model(source), dtype)
    _require_finite(loaded)
    return loaded


def _load(source: str, found: Found, dtype: torch.dtype) -> LoadedModel:
    if found.kind == "tiny":
        return _float_folder(source, tiny_folder(), dtype)
    if found.kind == "gguf":
        return _from_gguf(source, found.path, dtype)
    if found.kind == "run":
        return _from_run(source, found.path)
    if found.kind == "merged":
        _refuse_link_out(found.path)
        return _one_bit(source, *load_converted(found.path))
    if found.kind == "packed":
        return _one_bit(source, *reopen_packed(found.path))
    folder = folder_of_others(source, found)
    if is_hf_bitnet(folder):
        return _one_bit(source, *import_hf_bitnet(folder, ActivationScheme(), dtype))
    return _float_folder(source, folder, dtype)


def _require_finite(loaded: LoadedModel) -> None:
    """Refuse weights that are no numbers, or without end: one of them makes every logit so, and training in vain."""
    for name, value in loaded.model.state_dict(keep_vars=True).items():
        if value.is_floating_point() and not math.isfinite(float(value.detach().sum(dtype=torch.float64))):
            raise FormatError(
                f"`model.source={loaded.source}`: {name} holds values that are not finite (inf or nan). The file is "
                "damaged, or the training that made it diverged: take another one."
            )


def load_mapped(source: str) -> LoadedModel:
    """Open a float model with parameters that lie in its mapped files, in their dtype: it may be larger than memory.

    Rows in a mapped file are not aligned, so float sums may round differently: copy what is computed with.

    Raises ConversionError for a GGUF file, for a model that is 1-bit already, and as `load_pretrained` does.
    """
    found = require_model(source)
    if found.kind == "gguf":
        raise ConversionError(
            f"`model.source={source}`: weights of a GGUF cannot be mapped, they have to be dequantised. Give the "
            "Hugging Face folder, or, where the model fits into memory, train with `blockwise=on`."
        )
    folder = tiny_folder() if found.kind == "tiny" else None
    if folder is None and found.kind not in ("run", "merged", "packed"):
        folder = folder_of_others(source, found)
    if folder is None or is_hf_bitnet(folder):
        raise ConversionError(f"`model.source={source}` is 1-bit already. Give the float model it was made from.")
    return _float_folder(source, folder, "auto")


def source_bytes(source: str) -> int | None:
    """Bytes of a model as it was given: a GGUF file, the weights of a folder; None where they are not at hand.

    Any folder of weights counts, a packed or a merged one too; a hub id is looked up in the local cache alone.
    """
    path = tiny_folder() if source == TINY else path_of(source)
    if find_model(source).kind == "run":
        path = next((path / name for name in MODELS_OF_RUN if is_folder(path / name)), path)
    if is_file(path):
        return path.stat().st_size
    try:
        folder = path if is_folder(path) else Path(snapshot_download(hub_id(source), local_files_only=True))
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


def _from_run(source: str, run: Path) -> LoadedModel:
    for found in (find_model(str(run / name)) for name in MODELS_OF_RUN):
        if found.kind in ("merged", "packed"):
            return replace(load_pretrained(str(found.path)), source=source)
    raise ConversionError(
        f"`model.source={source}` is a run that has no merged or packed model yet. `bitnet-train merge {source}` makes "
        "one of a trained run."
    )


def folder_of_others(source: str, found: Found, files: Sequence[str] = _HUB_FILES) -> Path:
    """Return the folder of a Hugging Face model, of a hub id with these `files` of it; refuse what is none."""
    folder = _snapshot(source, files) if found.kind == "hub" else found.path
    if (folder / ADAPTER_FILE).is_file():
        raise ConversionError(_adapter_message(folder))
    if not (folder / HF_FILE).is_file():
        raise ConversionError(f"`model.source={folder}` has no {HF_FILE}, so it holds no model. {ALLOWED}")
    _refuse_link_out(folder)
    return folder


def _refuse_link_out(folder: Path) -> None:
    if (link := link_out(folder)) is not None:
        raise ConversionError(
            f"`model.source={folder}`: {link.name} is a link to a file outside the folder ({link.readlink()}), and "
            "those are not followed. Copy the file into the folder."
        )


def _snapshot(source: str, files: Sequence[str]) -> Path:
    """Fetch the few files of a hub id that matter, or find them in the cache; return their folder."""
    try:
        return Path(snapshot_download(hub_id(source), allow_patterns=list(files), ignore_patterns=["*/*"]))
    except Exception as error:  # the http library behind huggingface_hub, and its errors, differ between versions
        raise cannot_load(source, "as a hub id (neither from the cache nor from huggingface.co)", error) from error


def _one_bit(
    source: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, record: ConversionRecord
) -> LoadedModel:
    if tokenizer is None:
        raise ConversionError(f"`model.source={source}` has no tokenizer, so no text can be read with it.")
    description = f"{_describe(model)}, {record.describe()}"
    return LoadedModel(model, tokenizer, source, description, record)


def _from_gguf(source: str, path: Path, dtype: torch.dtype) -> LoadedModel:
    gguf = open_gguf(path)
    require_language_model(source, gguf)
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


def _float_folder(source: str, folder: Path, dtype: torch.dtype | Literal["auto"]) -> LoadedModel:
    weight_files(folder)  # transformers follows `../` in an index
    return _float(source, *read_folder(source, folder, dtype))


def _float(source: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> LoadedModel:
    return LoadedModel(model, tokenizer, source, _describe(model))


def require_language_model(source: str, gguf: GgufFile) -> None:
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


def _adapter_message(folder: Path) -> str:
    try:
        base = parse_json((folder / ADAPTER_FILE).read_text(encoding="utf-8")).get("base_model_name_or_path")
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


def _describe(model: PreTrainedModel) -> str:
    return f"{type(model).__name__}, {model.num_parameters():,} parameters"
