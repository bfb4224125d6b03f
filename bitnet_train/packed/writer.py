"""Write a merged 1-bit model as one folder that is all a user needs: `bitnet_train.load(folder)`.

    config.json, generation_config.json       Hugging Face's own
    tokenizer files, chat template            Hugging Face's own
    weights.safetensors                       planes, scales, tables; everything else exactly (`contents.py`)
    README.md                                 a short model card
    native.json                               for the C++ core alone, by `exporters/packed.py`
    manifest.json                             written last: the other files with their hashes (`manifest.py`)

What was trained is what is exported: codes and scales come from `BitLayer.quantized()`, which the trained forward
itself calls. The token embedding and the head can be rounded to few bits on top of that, where the caller asks for it.
Nothing that Hugging Face would load by itself is left in the folder: there is no `model.safetensors`,
so `from_pretrained` refuses it and cannot fill the packed layers with random numbers. Its error ends with what
`transformers_weights` in config.json says in place of a file: to import this package first. Where that has been done,
`quantization_config` leads to it (`runtime/hf_quantizer.py`), and `from_pretrained` works.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import FormatError
from bitnet_train.json_text import parse_json
from bitnet_train.model.generation_settings import GENERATION_FILE, with_turn_end
from bitnet_train.model.saved_tensors import save_tensors
from bitnet_train.model.training_only import require_packable
from bitnet_train.packed.card import model_card
from bitnet_train.packed.contents import Contents, collect
from bitnet_train.packed.export_folder import export_folder
from bitnet_train.packed.int8_tables import int8_tables
from bitnet_train.packed.manifest import FORMAT, FileEntry, Manifest
from bitnet_train.packed.names import CONFIG_NAME, MANIFEST_NAME, WEIGHTS_NAME
from bitnet_train.packed.reader import hash_file, read_manifest
from bitnet_train.packed.sizes import measure_sizes

_CARD_NAME = "README.md"
_TOKENIZER_NAME = "tokenizer.json"
QUANT_METHOD = "bitnet_train"
"""The name in config.json under which transformers finds this package."""
WAY_OUT = (
    "none. This folder was packed by bitnet-train: `pip install bitnet-train`, and `import bitnet_train` before "
    "`from_pretrained`"
)
"""What stands in config.json where transformers looks for the name of a weights file, and quotes what is none."""


def export_packed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    out_dir: str | Path,
    facts: dict[str, Any] | None = None,
    *,
    force: bool = False,
    embedding: str = "exact",
    head: str = "exact",
    beside: Callable[[Path, Manifest], None] | None = None,
) -> Manifest:
    """Pack `model` into the folder `out_dir` and return its manifest, as `bitnet_train.export` does, which explains it.

    `beside` is called with the folder and what its manifest says of the weights, to write further files into it. Raises
    ConfigError, FormatError and DiskError as said there; nothing has been changed then.
    """
    _check_model(model)
    tables = int8_tables(model, embedding=embedding, head=head)
    facts_record: dict[str, Any] = plain_facts(facts or {})
    with export_folder(Path(out_dir).absolute(), force=force, owned=_files_of_an_export) as folder:
        contents = collect(model, tables)
        save_tensors(contents.tensors, folder / WEIGHTS_NAME, {"format": "pt"})
        write_companions(model, tokenizer, folder)
        manifest = _describe(model, contents, facts_record)
        if beside is not None:
            beside(folder, manifest)
        return _finish(manifest, folder)


def plain_facts(value: Any) -> Any:
    """Return `value` as JSON can hold it: paths and other objects as text, infinities and NaN as text too."""
    if isinstance(value, dict):
        return {str(key): plain_facts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_facts(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)


def _check_model(model: PreTrainedModel) -> None:
    if hasattr(model, "peft_config"):
        raise FormatError("The model still has adapters. Merge them first: `model = bitnet_train.merge(model)`.")
    require_packable(model)
    assert isinstance(model, PreTrainedModel), f"export_packed takes a Hugging Face model, not {type(model).__name__}"


def write_companions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Write what lies beside the weights: config, generation settings, tokenizer and chat template."""
    config = deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.quantization_config = {
        "quant_method": QUANT_METHOD,
        "format": FORMAT,
        "attention": str(model.config._attn_implementation or ""),
    }
    config.save_pretrained(folder)
    config.transformers_weights = WAY_OUT  # which `save_pretrained` leaves out
    config.to_json_file(folder / CONFIG_NAME, use_diff=True)
    with_turn_end(model, tokenizer).to_json_file(folder / GENERATION_FILE)
    if tokenizer is not None:
        in_one_file = isinstance(tokenizer.chat_template, dict)  # several templates would become a sub-folder
        tokenizer.save_pretrained(str(folder), save_jinja_files=not in_one_file)
        _without_blanks(folder / _TOKENIZER_NAME)


def _without_blanks(path: Path) -> None:
    """Write the same JSON without blanks: a tokenizer is saved indented, in more than twice the bytes."""
    if path.is_file():
        content = parse_json(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def _finish(manifest: Manifest, folder: Path) -> Manifest:
    """Write the card beside the other files, then the manifest, which states them all; return it."""
    (folder / _CARD_NAME).write_text(model_card(manifest), encoding="utf-8")
    files = {path.name: FileEntry(path.stat().st_size, hash_file(path)) for path in sorted(folder.iterdir())}
    sizes = replace(manifest.sizes, total_bytes=sum(entry.num_bytes for entry in files.values()))
    whole = replace(manifest, files=files, sizes=sizes)
    (folder / MANIFEST_NAME).write_text(whole.to_json(), encoding="utf-8")
    return whole


def _describe(model: PreTrainedModel, contents: Contents, facts: dict[str, Any]) -> Manifest:
    """Return the manifest of a folder that has no files yet."""
    tensors = contents.entries()  # which hashes every one of them
    return Manifest(
        created_by=versions(),
        base_model=_public_name(str(facts.get("base_model") or model.config.name_or_path or "unknown")),
        recipe=str(facts.get("recipe") or ""),
        model_class=type(model).__name__,
        attention=str(model.config._attn_implementation or ""),
        layers=tuple(contents.layers),
        tensors=tensors,
        tied=contents.tied,
        files={},
        sizes=measure_sizes(contents.layers, tensors, total_bytes=0),
        facts=facts,
        tables=tuple(contents.tables),
    )


def _public_name(model: str) -> str:
    """Return what others may read of a name: a hub id, or the last part of a path, not where it lies here."""
    return Path(model).name if Path(model).is_absolute() else model


def versions() -> dict[str, str]:
    """Return the versions that decide what a model computes."""
    packages = {name: version(name) for name in ("torch", "transformers", "safetensors")}
    return {"bitnet_train": _own_version(), **packages, "python": platform.python_version()}


def _own_version() -> str:
    import bitnet_train

    return bitnet_train.__version__


def _files_of_an_export(folder: Path) -> set[str]:
    """Return the names that the packed folder at this path wrote; nothing when it is not one."""
    try:
        return {MANIFEST_NAME, *read_manifest(folder).files}
    except FormatError:
        return _names_in_a_damaged_manifest(folder)


def _names_in_a_damaged_manifest(folder: Path) -> set[str]:
    """Return the file names of a manifest that does not verify, so that `force` can also replace a damaged export."""
    try:
        body = parse_json((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        return {MANIFEST_NAME, *map(str, body["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
