"""Reconstruct a model larger than memory block by block, straight into a converted folder.

    F_b   float32 copy of the mapped block        gives the targets, see `blockwise`
    Q_b   the same copy with 1-bit layers         trained, saved as a file, dropped

A block that is not converted yet is its own full-precision target, so no second model is needed. In use at a time are
one block with its gradients and moments, the hidden states (in a file beyond `blockwise.memory_mb`), and what lies
outside the blocks, but for a head of its own, which no block needs. The rest stays in the files it came from. The files
of finished blocks become those of the folder.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.model.convert import replace_layers, replace_parts
from bitnet_train.model.converted import ConversionRecord, converted_folder
from bitnet_train.model.folder_names import INDEX_FILE
from bitnet_train.model.rounded_table import put_tables, round_parameters, stored_parameters
from bitnet_train.model.saved_tensors import save_tensors
from bitnet_train.model.start.blocks import block_calls, decoder_blocks
from bitnet_train.model.start.initialise import require_learnable
from bitnet_train.progress import track
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.stored import Stored
from bitnet_train.quant.stored import rounded as round_to
from bitnet_train.train.blocks.block_rows import BlockRun
from bitnet_train.train.blocks.blockwise import BlockTraining, Reconstruction


def reconstruct_streamed(
    original: PreTrainedModel,
    record: ConversionRecord,
    tokenizer: PreTrainedTokenizerBase | None,
    out: Path,
    run: BlockRun,
    *,
    overwrite: bool = False,
) -> Reconstruction:
    """Write `original`, converted as `record` says and reconstructed, to `out`.

    `original` is a float model in any dtype; what is outside its blocks becomes float32. Whether the rest is rounded
    says the record, not `run.rounded`. Finished blocks lie in `run.scratch` until they are written, so a second call
    goes on.

    Raises
    ------
    ConversionError
        When `run.init` fits scales that are fixed, or `out` is taken and not to be overwritten.
    TrainingError
        When a block's loss is not finite, or a saved block is damaged.
    """
    started = time.perf_counter()
    require_learnable(record.schemes, run.init)
    name, blocks = decoder_blocks(original)
    of_block = [_within(record.schemes, f"{name}.{index}.") for index in range(len(blocks))]
    student = _sharing(original, record, name)
    _widen_ends(original, name)
    if record.is_rounded:
        _round_outside(student, name)
    blocks[0] = _in_float32(blocks[0])  # it is run to learn how blocks are called
    calls = block_calls(original, run.token_ids.shape[1])
    training = BlockTraining.begin(student, original, replace(run, rounded=record.is_rounded))
    results = []
    for index in track(range(len(blocks)), "Reconstructing blocks", len(blocks)):
        plain = _in_float32(blocks[index])

        def convert(index: int, block: nn.Module = plain) -> nn.Module:
            replace_parts(block, of_block[index], record.activation, record.surrogate)
            if record.is_rounded:
                round_parameters(block)
            return block

        results.append(training.one(index, plain, calls[index], convert))
    with converted_folder(out, student, record, tokenizer, replace=overwrite) as folder:
        files = [training.file(index) for index in range(len(blocks))]
        _write_shards(folder, student, name, files, rounded=record.is_rounded)
    return training.finished(results, started)


def _within(schemes: Mapping[str, WeightScheme], prefix: str) -> dict[str, WeightScheme]:
    return {key.removeprefix(prefix): scheme for key, scheme in schemes.items() if key.startswith(prefix)}


def _sharing(original: PreTrainedModel, record: ConversionRecord, blocks: str) -> PreTrainedModel:
    """Return a model with the very tensors of `original`, but for 1-bit layers outside the blocks."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*original.parameters(), *original.buffers())}
    student: PreTrainedModel = deepcopy(original, shared)
    outside = {key: scheme for key, scheme in record.schemes.items() if not key.startswith(f"{blocks}.")}
    replace_layers(student, outside, record.activation, record.surrogate)
    put_tables(student, record.tables or (), record.stored_tables)
    return student


def _widen_ends(model: PreTrainedModel, blocks: str) -> None:
    """Make float32 of what is computed with outside the blocks; a head of its own is not."""
    unused = _unused(model)
    for key, parameter in model.named_parameters():
        if not key.startswith(f"{blocks}.") and id(parameter) not in unused:
            parameter.data = parameter.data.float()


def _round_outside(student: PreTrainedModel, blocks: str) -> None:
    """Give the student rounded tensors of its own for what is computed with outside the blocks."""
    unused = _unused(student)
    own = {
        id(parameter): nn.Parameter(round_to(parameter, kind), requires_grad=False)
        for parameter, kind in stored_parameters(student, outside=blocks)
        if id(parameter) not in unused
    }
    for module in student.modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            setattr(module, leaf, own.get(id(parameter), parameter))


def _unused(model: PreTrainedModel) -> set[int]:
    """Return by id the parameters of a head of its own, which no block needs."""
    head = model.get_output_embeddings()
    unused = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    return unused - {id(parameter) for parameter in model.get_input_embeddings().parameters()}


def _in_float32(block: nn.Module) -> nn.Module:
    """Return a copy in memory, whose rows are aligned as those of a mapped file may not be."""
    copy = deepcopy(block).float()
    for parameter in copy.parameters():
        parameter.requires_grad_(False)
    return copy


def _write_shards(folder: Path, student: PreTrainedModel, blocks: str, files: list[Path], *, rounded: bool) -> None:
    """Put the files of the blocks and one for every tensor outside them there, and the index of what lies where."""
    places: dict[str, str] = {}
    for file in files:
        name = f"model-{file.name}"
        _link(file, folder / name)
        with safe_open(file, framework="pt") as saved:
            places.update(dict.fromkeys(saved.keys(), name))
    kinds = stored_parameters(student) if rounded else ()
    stored: dict[int, Stored] = {id(parameter): kind for parameter, kind in kinds}
    for key, tensor in student.named_parameters():
        if not key.startswith(f"{blocks}."):
            places[key] = f"model-{key}.safetensors"
            values = round_to(tensor, stored[id(tensor)]) if id(tensor) in stored else tensor.detach().float()
            save_tensors({key: values.contiguous()}, folder / places[key], {"format": "pt"})
    text = json.dumps({"metadata": {}, "weight_map": places}, indent=2)
    (folder / INDEX_FILE).write_text(text + "\n", encoding="utf-8")


def _link(file: Path, to: Path) -> None:
    """Give a file a second name, which takes no room on the disk; a copy where the file system has no such names."""
    try:
        to.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, to)
