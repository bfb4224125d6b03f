"""Damaged models behind every door: a packed folder, `quant_method: bitnet`, and a GGUF with 1-bit weights.

Hashes are not checked, for that would stop nearly all of them at the door; but a packed folder is also opened as
everybody opens it, with its hashes, and must then be refused or give the tensors that were written.
"""

from __future__ import annotations

import random
import shutil
import sys
import warnings
from pathlib import Path

import torch

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.importers.load import load_pretrained
from bitnet_train.packed.source import open_packed
from scripts import ROOT
from scripts.fuzz import folders, watch
from scripts.fuzz.folders import INDEX, SHARD
from scripts.fuzz.mutations import (
    GGUF,
    JSON,
    OUTSIDE,
    SAFETENSORS,
    Files,
    cut_or_grow,
    damage,
    edit_index,
    edit_json,
    holding,
)
from scripts.fuzz.targets import Attempt, Outcome

PACKED: Files = {"weights.safetensors": SAFETENSORS, "manifest.json": JSON, "config.json": JSON}
HF_BITNET: Files = {
    SHARD: SAFETENSORS,
    "config.json": JSON,
    INDEX: (edit_index, edit_json, cut_or_grow),
    "generation_config.json": JSON,
    "tokenizer.json": (edit_json, cut_or_grow),
}
_PYTHON = (sys.prefix, sys.base_prefix, sys.exec_prefix, *(folder for folder in sys.path if "site-packages" in folder))
_SYSTEM = tuple(Path(folder) for folder in ("/proc", "/sys", "/dev", *_PYTHON))


def packed(work: Path) -> Attempt:
    """Read every tensor of a packed folder, as an export does."""
    folder = folders.packed_folder(work / "packed", "int8_tables")
    sound = _tensors(folder, verify=True)

    def attempt(dice: random.Random, number: int) -> Outcome:
        path, content, mutation = damage(dice, folder, PACKED)
        with holding(path, content, mutation.__name__), watch.little_memory():
            if mutation is not edit_json:  # that one seals its lies
                _refused_or_same(folder, sound)
            try:
                _tensors(folder, verify=False)
            except FormatError:
                return "refused"
            return "works"

    return attempt


def hf_bitnet(work: Path) -> Attempt:
    """Load an export for transformers; a sound file beside the folder must stay shut."""
    sound = folders.exported("hf_bitnet", folders.packed_folder(work / "packed"), work / "hf_bitnet")
    outside = sound / OUTSIDE
    shutil.copyfile(sound / SHARD, outside)
    bait, allowed = watch.Bait(outside.resolve()), (sound, ROOT, *_SYSTEM)
    assert _load(sound) == "works"

    def attempt(dice: random.Random, number: int) -> Outcome:
        path, content, mutation = damage(dice, sound, HF_BITNET)
        with holding(path, content, mutation.__name__):
            with watch.audited() as events:
                outcome = _load(sound)
            elsewhere = watch.opened_outside(events, allowed)
            assert not elsewhere, f"opened {elsewhere}"
            assert not bait.was_opened(), f"opened {outside}"
            assert not watch.reached_out(events), watch.reached_out(events)
        return outcome

    return attempt


def gguf(work: Path) -> Attempt:
    """Load a GGUF file of 1-bit weights, and compute with it."""
    folder = folders.exported("gguf", folders.packed_folder(work / "packed"), work / "gguf")

    def attempt(dice: random.Random, number: int) -> Outcome:
        path, content, mutation = damage(dice, folder, {"model.gguf": GGUF})
        with holding(path, content, mutation.__name__):
            return _load(path)

    return attempt


@torch.no_grad()
def _load(model: Path) -> Outcome:
    with watch.little_memory(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = load_pretrained(str(model))
        except (FormatError, ConversionError):
            return "refused"
        loaded.model(torch.tensor([[1, 2, 0]]))
        return "works"


def _tensors(folder: Path, *, verify: bool) -> dict[str, torch.Tensor]:
    with open_packed(folder, verify=verify) as source:
        names = (*source.layers, *source.tables, *source.floats)
        return {name: source.dense(name).clone() for name in names}


def _refused_or_same(folder: Path, sound: dict[str, torch.Tensor]) -> None:
    try:
        read = _tensors(folder, verify=True)
    except FormatError:
        return
    assert read.keys() == sound.keys(), "other tensors, with hashes that fit"
    assert all(torch.equal(read[name], tensor) for name, tensor in sound.items()), "a wrong tensor, with its hash"
