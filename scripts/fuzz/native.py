"""Damaged packed folders in the native runtime. torch stays out of this process: sanitizers are preloaded into it."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from os import environ
from pathlib import Path

from bitnet_train.errors import BitnetTrainError, FormatError
from bitnet_train.runtime.native.model import NativeModel
from scripts import ROOT
from scripts.fuzz.mutations import JSON, SAFETENSORS, Files, damage, edit_json, flip_bytes, holding
from scripts.fuzz.targets import Attempt, Outcome

TABLES = ("ternary", "int8_tables", "int4_tables")
CLASSES = ("gemma2", "gemma3", "smollm3", "olmo2", "granite", "phi3")  # `folders.OTHER_CLASSES`, which needs torch
KINDS = (*TABLES, *CLASSES)
FILES: Files = {
    "weights.safetensors": SAFETENSORS,
    "config.json": JSON,
    "manifest.json": JSON,
    "generation_config.json": (flip_bytes, edit_json),
}


def native(work: Path) -> Attempt:
    """Load a packed folder, hashes not checked, and generate two tokens."""
    folders = {kind: work / kind for kind in KINDS}
    make_folders(folders)
    sound = list(folders.values())

    def attempt(dice: random.Random, number: int) -> Outcome:
        path, content, mutation = damage(dice, sound[number % len(sound)], FILES)
        with holding(path, content, f"{path.parent.name}, {mutation.__name__}"):
            return _load_and_use(path.parent)

    return attempt


def _load_and_use(folder: Path) -> Outcome:
    try:
        model = NativeModel.load(folder, num_threads=1, verify=False)
    except FormatError:
        return "refused"
    with suppress(BitnetTrainError):  # such as a vocabulary of one token
        model.generate_ids([1, 2, 0], 2)
    return "works"


def make_folders(folders: Mapping[str, Path]) -> None:
    """Write a packed folder of each kind; without torch here, in a process of its own, without what is preloaded."""
    code = "import sys\nfrom pathlib import Path\nfrom scripts.fuzz.folders import packed_folder\n"
    code += "for kind in sys.argv[2:]:\n    packed_folder(Path(sys.argv[1]) / kind, kind)"
    if "torch" in sys.modules:
        from scripts.fuzz.folders import packed_folder

        for kind, folder in folders.items():
            packed_folder(folder, kind)
        return
    plain = {name: value for name, value in environ.items() if name != "LD_PRELOAD"} | {"PYTHONPATH": str(ROOT)}
    work = next(iter(folders.values())).parent
    subprocess.run([sys.executable, "-c", code, str(work), *folders], check=True, env=plain)
