"""Damaged checkpoints of a training: refused, or what is loaded is what was saved, to the last number."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from bitnet_train.errors import TrainingError
from bitnet_train.train.loop.checkpoint import MANIFEST, STATE, AtomicCheckpointIO, verify
from scripts.fuzz.mutations import Files, cut_or_grow, damage, edit_json, flip_bytes, holding
from scripts.fuzz.targets import Attempt, Outcome

FILES: Files = {MANIFEST: (flip_bytes, cut_or_grow, edit_json, edit_json), STATE: (flip_bytes, cut_or_grow)}


def checkpoints(work: Path) -> Attempt:
    """Damage the manifest or the state of a checkpoint, and load it as a resumed run does."""
    folder = work / "step-000004"
    state = {
        "state_dict": {"student.weight": torch.arange(64, dtype=torch.float32), "student.scale": torch.ones(3)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1}]}],
        "progress": {"step": 4, "tokens": 640, "seconds": 1.5, "max_steps": 8, "seed": 0, "metrics": {"loss": 2.5}},
    }
    writer = AtomicCheckpointIO(settings={"activation": "int8"})
    writer.save_checkpoint(state, folder)
    sound, manifest = writer.load_checkpoint(folder), verify(folder)

    def attempt(dice: random.Random, number: int) -> Outcome:
        path, content, mutation = damage(dice, folder, FILES)
        with holding(path, content, mutation.__name__):
            try:
                loaded, says = writer.load_checkpoint(folder), verify(folder)
            except TrainingError:
                return "refused"
        assert _same(loaded, sound), "another state than was saved"
        assert says == manifest, f"the manifest says something else: {says}"
        return "works"

    return attempt


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[name], second[name]) for name in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(_same, first, second))
    return first == second
