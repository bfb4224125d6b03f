"""Check a packed folder for llama.cpp, and write it: `model.gguf` and a README.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.exporters.gguf.block_type import Choice, choose_type
from bitnet_train.exporters.gguf.card import gguf_card
from bitnet_train.exporters.gguf.container import MODEL_NAME, FileTensor, require_package, write_file
from bitnet_train.exporters.gguf.limits import head_size, require_supported, rotated_share
from bitnet_train.exporters.gguf.metadata import ModelKeys, add_model, context_length, ignored_window
from bitnet_train.exporters.gguf.modelfile import NAME as MODELFILE
from bitnet_train.exporters.gguf.modelfile import ChatFormat, Modelfile, modelfile
from bitnet_train.exporters.gguf.rope import read_rope, rope_tensors
from bitnet_train.exporters.gguf.tensors import plan_tensors
from bitnet_train.exporters.gguf.tokenizer import read_vocabulary
from bitnet_train.exporters.gguf.vocabulary import Vocabulary, add_vocabulary
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.gguf.architecture import GgufArchitecture, architecture_of
from bitnet_train.packed.source import PackedSource

_EMBEDDING = "token_embd.weight"
_NO_ROTATION = "gpt2"


@dataclass(frozen=True)
class _Draft:
    """Everything about the file but the bytes of its tensors."""

    choice: Choice
    tensors: list[FileTensor]
    keys: ModelKeys
    vocabulary: Vocabulary


def check(source: PackedSource, options: ExportOptions) -> None:
    """Raise for what a GGUF of this model cannot hold or llama.cpp would compute differently; nothing is written.

    Raises
    ------
    ConfigError
        For an unknown `export.type`, or without the `gguf` package.
    FormatError
        Naming the layer, tensor, setting or step of the tokenizer, and the fix.
    """
    require_package()
    _draft(source, options)


def write(source: PackedSource, folder: Path, options: ExportOptions) -> dict[str, Any]:
    """Write `model.gguf`, `README.md` and perhaps a `Modelfile` into an empty folder; return the facts for the record.

    The model is never in memory as a whole: every tensor is read, encoded and written on its own.
    """
    draft = _draft(source, options)

    def add_metadata(writer: Any) -> None:
        add_model(writer, draft.keys, source.manifest, draft.choice)
        add_vocabulary(writer, draft.vocabulary)

    write_file(folder / MODEL_NAME, draft.keys.architecture.name, add_metadata, draft.tensors)
    facts = _facts(draft, options)
    if options.modelfile:
        made = _modelfile(source, draft)
        (folder / MODELFILE).write_text(made.text, encoding="utf-8")
        facts["notes"] += made.notes
    card = gguf_card(source.manifest, facts, draft.choice)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return facts


def _draft(source: PackedSource, options: ExportOptions) -> _Draft:
    architecture = _architecture(source)
    require_supported(architecture, source.config)
    choice = choose_type(list(source.layers.values()), options.type)
    _require_half_scales(source)
    tensors = plan_tensors(source, architecture, choice.kinds, options)
    embedding = next((tensor for tensor in tensors if tensor.name == _EMBEDDING), None)
    if embedding is None:
        raise FormatError(f"The packed folder has no token embedding, which {architecture.name} needs.")
    _require_head(architecture, tensors)
    rope = None if architecture.name == _NO_ROTATION else read_rope(source.config)
    if rope is not None:
        tensors += rope_tensors(rope, int(head_size(source.config) * rotated_share(source.config)))
    vocab_size = embedding.shape[0]
    keys = ModelKeys(architecture, source.config, rope, vocab_size, source.generation)
    return _Draft(choice, tensors, keys, read_vocabulary(source, vocab_size, options))


def _modelfile(source: PackedSource, draft: _Draft) -> Modelfile:
    special = draft.vocabulary.special
    chat = ChatFormat(special.default_template, special.texts, special.texts.get("bos_token", "") * special.add_bos)
    context = context_length(draft.keys.architecture, source.config)
    return modelfile(chat, context=context, ends=special.end_texts, generation=source.generation)


def _architecture(source: PackedSource) -> GgufArchitecture:
    try:
        return architecture_of(source.config)
    except ConversionError as error:
        raise FormatError(str(error)) from error


def _require_half_scales(source: PackedSource) -> None:
    """Raise FormatError for a layer with a scale that no float16 holds: a block has no other."""
    for name, entry in source.layers.items():
        if entry.scheme.scale_dtype == "float16":
            continue
        scale = source.stored_scale(name)
        if not torch.equal(scale.half().float(), scale.float()):
            raise FormatError(
                f"{name} has {entry.scheme.scale_dtype} scales that no float16 holds, and the blocks of llama.cpp have "
                "no others. Convert with `weight.scale_dtype=float16`."
            )


def _require_head(architecture: GgufArchitecture, tensors: list[FileTensor]) -> None:
    if architecture.name == "phi2" and not any(tensor.name == "output.weight" for tensor in tensors):
        raise FormatError("llama.cpp's phi2 needs a head of its own, and this model ties it to the embedding.")


def _facts(draft: _Draft, options: ExportOptions) -> dict[str, Any]:
    notes = list(draft.vocabulary.notes)
    window = ignored_window(draft.keys.architecture, draft.keys.config)
    if window is not None:
        notes.append(
            f"the context length is the {window} tokens of the sliding window, within which llama.cpp is exact"
        )
    notes += [
        f"the model ends a text at {text!r} too, and llama.cpp cannot be told so: give it as a stop string"
        for text in draft.vocabulary.special.lost_ends
    ]
    return {
        "type": " + ".join(draft.choice.names),
        "layers": dict(draft.choice.counts),
        "why": draft.choice.why,
        "rejected": draft.choice.rejected,
        "architecture": draft.keys.architecture.name,
        "tables": options.tables,
        "tokenizer": draft.vocabulary.model,
        "pre_tokenizer": draft.vocabulary.pre,
        "num_tensors": len(draft.tensors),
        "notes": notes,
    }
