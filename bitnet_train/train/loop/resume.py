"""What a checkpoint holds beside the optimiser, and how a run takes it up.

```
state_dict     tensors that train, and persistent buffers     (never the frozen weights: 60x smaller with LoRA)
progress       step, tokens, seconds, max_steps, seed, metrics, validation_metrics, held_out (`held_out`),
               watch (`guard`), good_step: that of the checkpoint to come back to, its own where the loss is calm
generators     states of python, numpy, torch and CUDA
<data module>  its own state; `next_batch` is set to the number of finished steps, because a loader that draws ahead
               counts batches that no step has used
```

Lightning's loop state is left out: it describes an epoch, and a run is not one (see `module`). In a Trainer of the
user's own, which goes by epochs, it stays.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from bitnet_train.errors import TrainingError
from bitnet_train.train.loop.checkpoint import AtomicCheckpointIO
from bitnet_train.train.loop.checkpoint_manifest import folder_name, step_of
from bitnet_train.train.loop.guard import DivergenceWatch
from bitnet_train.train.loop.held_out import HeldOutWatch
from bitnet_train.train.loop.rng import generator_states, restore_generators

PROGRESS = ("step", "tokens", "seconds", "max_steps", "seed", "metrics", "validation_metrics")


class _Resumable(Protocol):
    """What a module that trains in steps has: counters, figures, and the tensors and trainer of a LightningModule."""

    step: int
    tokens: int
    seconds_before: float
    max_steps: int
    seed: int
    is_guest: bool
    announced: frozenset[str]
    metrics: dict[str, float]
    validation_metrics: dict[str, float]
    held_out: HeldOutWatch
    watch: DivergenceWatch
    last_checkpoint: Path | None
    good_checkpoint: Path | None

    @property
    def is_calm(self) -> bool: ...
    @property
    def seconds(self) -> float: ...
    @property
    def trainer(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def named_parameters(self, *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Parameter]]: ...


def save_progress(module: _Resumable, checkpoint: dict[str, Any]) -> None:
    """Turn Lightning's checkpoint into the table above, in place."""
    if not module.is_guest:
        checkpoint.pop("loops", None)
    checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in saved_names(module)}
    watched = {"held_out": module.held_out.state(), "watch": module.watch.state(), "good_step": _good_step(module)}
    checkpoint["progress"] = {name: getattr(module, name) for name in PROGRESS} | watched
    checkpoint["generators"] = generator_states()
    data = checkpoint.get(type(getattr(module.trainer, "datamodule", None)).__qualname__)
    if isinstance(data, dict) and "next_batch" in data:
        data["next_batch"] = module.step


def load_progress(module: _Resumable, checkpoint: dict[str, Any]) -> None:
    """Take up counters and generators from a checkpoint; its tensors are loaded by Lightning afterwards.

    Raises
    ------
    TrainingError
        When the checkpoint holds other tensors than this run trains, or they have other shapes.
    """
    _check_same_tensors(module, checkpoint["state_dict"])
    for name in ("step", "tokens", "metrics", "validation_metrics"):
        setattr(module, name, checkpoint["progress"][name])
    module.held_out.take(checkpoint["progress"].get("held_out"))
    module.watch.take(checkpoint["progress"].get("watch"))
    module.good_checkpoint = _good_checkpoint(module, checkpoint["progress"].get("good_step"))
    module.seconds_before = checkpoint["progress"].get("seconds", 0.0)  # older ones have none
    _warn_of_changes(module, checkpoint["progress"])
    restore_generators(checkpoint["generators"])


def _good_step(module: _Resumable) -> int | None:
    if module.is_calm:
        return module.step
    return None if module.good_checkpoint is None else step_of(module.good_checkpoint)


def _good_checkpoint(module: _Resumable, good_step: int | None) -> Path | None:
    """Return the checkpoint to come back to, beside the one that is resumed; that itself where there is none."""
    resumed = module.last_checkpoint
    if resumed is None or good_step is None:
        return resumed
    good = resumed.with_name(folder_name(good_step))
    return good if good.is_dir() else resumed


def _warn_of_changes(module: _Resumable, progress: dict[str, Any]) -> None:
    settled = ("max_steps", "seed") if module.max_steps else ("seed",)  # a user's own Trainer says later where it ends
    changed = [name for name in settled if progress[name] != getattr(module, name)]
    for name in changed:
        if f"trainer.{name}" in module.announced:
            continue
        warnings.warn(
            f"`trainer.{name}` was {progress[name]} and is {getattr(module, name)} now: the run goes on from step "
            f"{module.step}, but not as the uninterrupted run would have.",
            stacklevel=2,
        )


def saved_names(module: _Resumable) -> list[str]:
    """Return the names of the tensors that a checkpoint holds."""
    frozen = {
        name for name, parameter in module.named_parameters(remove_duplicate=False) if not parameter.requires_grad
    }
    return [name for name in module.state_dict() if name not in frozen]


def _check_same_tensors(module: _Resumable, saved: dict[str, Any]) -> None:
    state = module.state_dict()
    expected = {name: tuple(state[name].shape) for name in saved_names(module)}
    given = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    different = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
    if different:
        name = different[0]
        raise TrainingError(
            f"The checkpoint belongs to another run: {len(different)} tensors differ. First: `{name}` has shape "
            f"{given.get(name, 'none')} in the checkpoint and {expected.get(name, 'none')} here. "
            "Use the model and adapter it was made with, or another run directory."
        )


def load_student(student: nn.Module, folder: Path) -> dict[str, Any]:
    """Load what a checkpoint folder trained into `student`, in place, and return the checkpoint's `progress`.

    Raises
    ------
    TrainingError
        When the checkpoint is damaged, or holds other tensors than `student` trains.
    """
    checkpoint = AtomicCheckpointIO().load_checkpoint(folder)
    prefix = "student."
    saved = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    state = student.state_dict()
    trained = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    wrong = sorted((trained - saved.keys()) | {name for name in saved if name not in state})
    wrong += sorted(name for name in saved.keys() & state.keys() if saved[name].shape != state[name].shape)
    if wrong:
        raise TrainingError(
            f"{folder} was not made by this configuration: {len(wrong)} tensors differ. First: `{wrong[0]}`. "
            "Use the run directory's own config.yaml."
        )
    student.load_state_dict(saved, strict=False)
    return checkpoint["progress"]
