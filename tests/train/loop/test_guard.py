from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LambdaCallback

from bitnet_train.errors import TrainingError
from bitnet_train.train.loop.checkpoint import AtomicCheckpointIO
from bitnet_train.train.loop.checkpoint_manifest import list_checkpoints
from bitnet_train.train.loop.guard import DivergenceWatch, check_finite
from bitnet_train.train.loop.layer_watch import LayerWatch, first_non_finite, quantised_layers
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.schedules import ScheduleConfig
from bitnet_train.train.loop.signals import Interrupted
from bitnet_train.train.losses.settings import LossConfig
from tests.fixtures.tiny_run import DieAt, run, tiny_module, trained_tensors

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (INF, 1.0), (1.0, NAN), (1.0, INF)])
def test_a_number_that_is_none_names_the_step_and_the_last_checkpoint(loss: float, norm: float) -> None:
    with pytest.raises(
        TrainingError, match=r"diverged at step 7.*Last good checkpoint: x/step-000004.*Lower `optimizer"
    ):
        check_finite(loss, norm, 7, Path("x/step-000004"))


def watched(losses: list[float], hardness: list[float | None] | None = None, **options) -> DivergenceWatch:
    watch = DivergenceWatch(**{"nats": 2.0, "steps": 3} | options)
    for step, (loss, level) in enumerate(zip(losses, hardness or [None] * len(losses), strict=True), start=1):
        watch.observe({"kl": loss}, {"kl": loss}, level)
        watch.check(step, Path("x/step-000002"), "scales grew most in model.layers.1.mlp")
    return watch


def test_a_loss_that_stays_far_above_its_best_ends_the_run() -> None:
    with pytest.raises(TrainingError) as caught:
        watched([5.0, 1.0, 3.5, 3.5, 3.5])
    said = str(caught.value)
    assert "at step 5 the loss has been more than 2 nats above its best, 1.000, for 3 steps in a row" in said
    assert "Scales grew most in model.layers.1.mlp." in said
    assert "Last good checkpoint: x/step-000002." in said
    assert "`trainer.divergence_nats=null`" in said


@pytest.mark.parametrize(
    ("losses", "hardness", "options"),
    [
        ([1.0, 9.0, 9.0, 1.0, 9.0, 9.0], None, {}),
        ([1.0, 2.9, 2.9, 2.9, 2.9], None, {}),
        ([1.0, 9.0, 9.0, 9.0, 9.0], None, {"nats": None}),
        ([0.1, 4.0, 8.0, 9.0, 9.0], [0.3, 3.0, 30.0, 100.0, 100.0], {}),
    ],
    ids=["a spike", "noise", "switched off", "a quantiser that hardens"],
)
def test_what_is_no_divergence_goes_on(losses: list[float], hardness: list[float | None] | None, options: dict) -> None:
    watched(losses, hardness, **options)


@pytest.mark.slow
def test_the_last_good_checkpoint_outlives_the_rise_that_ends_the_run(tmp_path: Path) -> None:
    module = tiny_module(steps=12, lr=1e-9, loss=LossConfig(kl=0.0, ce=1.0))
    module.schedule = ScheduleConfig()
    spoil = LambdaCallback(on_train_batch_start=lambda trainer, m, batch, index: _spoil(m) if m.step == 5 else None)
    options = {"save_every_steps": 1, "keep_last": 1, "divergence_nats": 1.0, "divergence_steps": 4}
    with pytest.raises(TrainingError, match=r"for 4 steps in a row.*Scales grew most in .*step-000005"):
        run(tmp_path, module, callbacks=[spoil], validate_every_steps=0, **options)
    kept = [path.name for path in list_checkpoints(tmp_path / "checkpoints")]
    assert kept == ["step-000005", "step-000008"]


@pytest.mark.slow
def test_a_rise_within_the_warm_up_is_waited_out_and_said_with_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tiny_module(steps=8, lr=1e-9, loss=LossConfig(kl=0.0, ce=1.0))
    module.schedule = ScheduleConfig(warmup_fraction=1.0)
    spoil = LambdaCallback(on_train_batch_start=lambda trainer, m, batch, index: _spoil(m) if m.step == 2 else None)
    options = {"divergence_nats": 1.0, "divergence_steps": 2, "validate_every_steps": 0}
    assert run(tmp_path, module, callbacks=[spoil], **options).steps == 8
    assert "warning: step 3: the loss jumped to " in capsys.readouterr().err
    told = [json.loads(line) for line in (tmp_path / "odd_steps.jsonl").open()]
    assert [(line["step"], "rows" in line) for line in told] == [(3, True)]


@pytest.mark.slow
def test_a_rise_of_the_warm_up_that_lasts_beyond_it_ends_the_run(tmp_path: Path) -> None:
    module = tiny_module(steps=12, lr=1e-9, loss=LossConfig(kl=0.0, ce=1.0))
    module.schedule = ScheduleConfig(warmup_fraction=0.5)
    spoil = LambdaCallback(on_train_batch_start=lambda trainer, m, batch, index: _spoil(m) if m.step == 3 else None)
    options = {"divergence_nats": 1.0, "divergence_steps": 2, "validate_every_steps": 0, "save_every_steps": 1}
    with pytest.raises(TrainingError, match=r"at step 7 .* for 4 steps in a row.*Last good checkpoint: .*step-000003"):
        run(tmp_path, module, callbacks=[spoil], **options)


def rising() -> BitLightningModule:
    module = tiny_module(steps=12, lr=1e-9, loss=LossConfig(kl=0.0, ce=1.0))
    module.schedule = ScheduleConfig()
    return module


@pytest.mark.slow
def test_a_resumed_run_remembers_the_best_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    spoil = LambdaCallback(on_train_batch_start=lambda trainer, m, batch, index: _spoil(m) if m.step == 3 else None)
    options = {"divergence_nats": 1.0, "divergence_steps": 4, "validate_every_steps": 0, "save_every_steps": 1}
    with pytest.raises(Interrupted):
        run(tmp_path, rising(), callbacks=[spoil, DieAt(4, signal.SIGTERM)], keep_last=9, **options)
    with pytest.raises(TrainingError, match=r"at step 7 .* for 4 steps in a row.*Last good checkpoint: .*step-000003"):
        run(tmp_path, rising(), resume="auto", keep_last=1, **options)
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-000003", "step-000006"]


def test_a_checkpoint_of_before_leaves_the_watch_as_it_is() -> None:
    watch = DivergenceWatch(nats=2.0)
    watch.take(None)
    assert watch == DivergenceWatch(nats=2.0)


GUESS = 7.0


@pytest.mark.parametrize(
    ("warm", "after", "rising"),
    [
        ([4.8, 31.0], [], 1),
        ([4.8, 31.0], [31.0, 31.0], 3),
        ([4.8, 9.9], [9.9], 0),
        ([12.0, 14.9], [14.9], 0),
        ([12.0, 15.1], [], 1),
        ([4.8, 31.0], [6.9, 6.9, 9.9], 0),
        ([4.8, 31.0], [6.9, 6.9, 10.0], 1),
    ],
    ids=[
        "a jump",
        "a jump that lasts",
        "worse before it is better",
        "worse than a guess from the start",
        "worse still",
        "back below a guess",
        "a new jump after it",
    ],
)
def test_in_the_warm_up_a_rise_counts_from_a_uniform_guess(warm: list[float], after: list[float], rising: int) -> None:
    watch = DivergenceWatch(nats=3.0)
    for loss in warm:
        watch.observe({"kl": loss}, {"kl": loss}, None, GUESS)
    for loss in after:
        watch.observe({"kl": loss}, {"kl": loss}, None)
    assert watch.rising == rising


def test_the_reverse_divergence_is_not_watched_before_the_warm_up_is_over() -> None:
    watch = DivergenceWatch()
    for loss in (4.8, 31.0):
        watch.observe({"reverse_kl": loss}, {"reverse_kl": loss}, None, GUESS)
    assert watch.is_calm


@torch.no_grad()
def _spoil(module) -> None:
    for name, parameter in module.student.named_parameters():
        if "norm" in name:
            parameter.mul_(1000.0)


def test_the_layer_that_moved_most_is_named() -> None:
    student = tiny_module().student
    watch, layers = LayerWatch(student), quantised_layers(student)
    names = list(layers)
    with torch.no_grad():
        layers[names[2]].base_layer.scale.mul_(7.0)
        layers[names[4]].base_layer.weight.neg_()
    said = watch.describe(student)
    assert f"grew most in {names[2]}, to 7 times" in said
    assert f"flipped most in {names[4]}, 100.0% of them" in said


def test_the_first_weight_or_the_gradient_where_it_began_is_named() -> None:
    student = tiny_module().student
    assert first_non_finite(student) is None
    parameters = {name: p for name, p in student.named_parameters() if p.requires_grad}
    first, *_, last = parameters
    for name in (first, last):
        parameters[name].grad = torch.full_like(parameters[name], NAN)
    assert last.removeprefix("base_model.model.") in (first_non_finite(student) or "")
    with torch.no_grad():
        parameters[first].fill_(INF)
    assert f"the weight {first.removeprefix('base_model.model.')}" in (first_non_finite(student) or "")


def test_finite_numbers_pass() -> None:
    check_finite(1.0, 0.0, 0, None)


class Poison(Callback):
    """Make one norm weight infinite before step 6: the loss of that step is no number."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if pl_module.step == 6:
            self.before = trained_tensors(pl_module)
            with torch.no_grad():
                next(p for name, p in pl_module.named_parameters() if "norm" in name).fill_(INF)
            self.poisoned = trained_tensors(pl_module)


@pytest.mark.slow
def test_divergence_stops_before_the_optimiser_and_never_reaches_a_checkpoint(tmp_path: Path) -> None:
    module, poison = tiny_module(), Poison()
    with pytest.raises(
        TrainingError, match=r"diverged at step 6: the loss is .*The weight .*norm.* is not finite.*step-000004"
    ):
        run(tmp_path, module, callbacks=[poison])
    after = trained_tensors(module)
    assert all(torch.equal(after[name], tensor) for name, tensor in poison.poisoned.items())
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-000004"]
    saved = AtomicCheckpointIO().load_checkpoint(tmp_path / "checkpoints/step-000004")
    assert all(bool(tensor.isfinite().all()) for tensor in saved["state_dict"].values())
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open() if "loss" in line][-1] == 6
