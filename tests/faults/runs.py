"""The small run that faults are done to: its words, and what is left of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import torch

from tests.faults.commands import Done, Warm
from tests.faults.injected import Fault

STEPS, BEGUN = 6, 2
MODEL = ("model.source=tiny", "debug=tiny", "logger=none", "trainer.num_threads=1", "trainer.precision=fp32")
LENGTH = (f"trainer.max_steps={STEPS}", "trainer.save_every_steps=1", "trainer.validate_every_steps=2")
WORDS = ("train", "quickstart", "weight=binary_tensor", "adapter=lora_inside", "adapter.rank=2", *MODEL, *LENGTH)

_MODULE = "bitnet_train.train.loop.module:BitLightningModule"
TOKENISING = "bitnet_train.train.data.module:tokenise_examples"
CONVERSION = "bitnet_train.run.assembly:convert_model"
STEP = f"{_MODULE}.training_step"
MICRO_STEP = f"{_MODULE}.manual_backward"  # two a step
BATCH = "bitnet_train.train.data.module:collate"
VALIDATION = f"{_MODULE}.validation_step"
CHECKPOINT = "torch:save"
FIGURES = "bitnet_train.train.trackers.tracking:JsonlLogger.log_metrics"
MERGING = "bitnet_train.model.converted:save_module"  # all is written but the weights
RENAME = "pathlib:Path.rename"
PACKING = "bitnet_train.packed.writer:write_companions"  # weights are written, config.json is not
EXPORTING = "bitnet_train.exporters.registry:files_of"  # all is written but the record


def weights_of(run_dir: Path, step: int = STEPS) -> dict[str, Any]:
    """Return what a step of a run left: what trains, and the moments, by name."""
    saved = torch.load(run_dir / "checkpoints" / f"step-{step:06d}" / "state.pt", weights_only=True)
    moments = saved["optimizer_states"][0]["state"]
    return saved["state_dict"] | {
        f"{key}.{name}": each for key, state in moments.items() for name, each in state.items()
    }


def steps_of(run_dir: Path) -> list[int]:
    """Return the steps that have a checkpoint."""
    return sorted(int(path.name.removeprefix("step-")) for path in (run_dir / "checkpoints").glob("step-*"))


def exporting(run_dir: Path, name: str) -> tuple[str, ...]:
    """Return the words that write a packed run in a format; `packed` is written anew."""
    return "export", str(run_dir), f"export={name}", f"export.force={name == 'packed'}".lower()


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_over(run_dir: Path) -> list[str]:
    """Return what half-written files and folders there are."""
    found = (path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*"))
    return sorted(name for name in found if re.search(r"\.(partial|previous|merged)\b|\.tmp", name))


def resumes_to(
    whole: dict[str, Any],
    warm: Warm,
    run_dir: Path,
    *further: str,
    faults: tuple[Fault, ...] = (),
    **environment: str,
) -> Done:
    """Resume a run; it must end well, with the very weights of the uninterrupted one, and nothing half-written."""
    done = warm.run(run_dir.parent, "train", run_dir, *further, faults=faults, **environment)
    assert done.code == 0, done.err
    reached = weights_of(run_dir)
    assert reached.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(reached[name], whole[name])] == []
    assert left_over(run_dir) == []
    return done


def copy_of(run_dir: Path, folder: Path) -> Path:
    """Return a copy of a run that a test may damage."""
    return shutil.copytree(run_dir, folder / "run")
