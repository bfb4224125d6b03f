"""The module in a Trainer of the user's own: loops, bar, loggers, checkpoints and validation are Lightning's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from bitnet_train.errors import ConfigError
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.settings import OptimConfig
from tests.fixtures.tiny_run import STILL, llama, rows, tiny_module

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def loader(*indices: int) -> DataLoader:
    return DataLoader([rows(index) for index in indices], batch_size=None)  # pyright: ignore[reportArgumentType]


def guest(**options) -> BitLightningModule:
    made = tiny_module(dropout=0.0)
    return BitLightningModule(made.student, made.teacher, **options)


@pytest.mark.slow
def test_figures_reach_loggers_bar_and_checkpoints_and_the_run_goes_on(tmp_path: Path) -> None:
    batches = loader(0, 1)
    keep = ModelCheckpoint(tmp_path / "kept", monitor="val_ce", save_last=True)
    log = CSVLogger(tmp_path)
    module = guest(optim=OptimConfig(lr=1e-2))
    trainer = Trainer(max_epochs=2, callbacks=[keep], logger=log, log_every_n_steps=1, **QUIET)
    trainer.fit(module, batches, loader(0))
    assert (module.max_steps, module.step) == (4, 4)
    assert set(module.metrics) <= set(trainer.callback_metrics)
    assert float(trainer.callback_metrics["val_ce"]) == pytest.approx(module.validation_metrics["val_ce"])
    assert {"loss", "val_perplexity"} <= set(Path(log.log_dir, "metrics.csv").read_text().splitlines()[0].split(","))
    assert {"loss", "val_ce"} <= set(trainer.progress_bar_metrics)
    onward = guest(optim=OptimConfig(lr=1e-2))
    trainer = Trainer(max_epochs=3, logger=False, enable_checkpointing=False, **QUIET)
    trainer.fit(onward, batches, ckpt_path=keep.last_model_path)
    assert (onward.max_steps, onward.step) == (6, 6)


@pytest.mark.slow
def test_held_out_figures_are_of_all_rows_of_the_batch() -> None:
    module = guest(optim=OptimConfig(lr=STILL))
    trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False, **QUIET)
    trainer.fit(module, loader(0), loader(1, 2))
    trained = sum(int((rows(index)["labels"][:, 1:] != -100).sum()) for index in (1, 2))
    assert module.validation_metrics["val_tokens"] == trained


def test_schedules_without_an_end_are_refused() -> None:
    module = guest()
    trainer = Trainer(max_epochs=-1, logger=False, enable_checkpointing=False, **QUIET)
    with pytest.raises(ConfigError, match=r"Trainer\(max_steps=\.\.\.\)"):
        trainer.fit(module, loader(0))


def test_all_rows_of_a_batch_are_one_forward_unless_told_otherwise() -> None:
    seen = []
    for micro_rows in (None, 3):
        module = guest(micro_rows=micro_rows)
        embedding = module.student.get_input_embeddings()
        embedding.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
        trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False, **QUIET)
        with torch.random.fork_rng():
            trainer.fit(module, loader(0))
    assert [rows_read for rows_read in seen if rows_read > 1] == [8, 3, 3, 2]  # of 1: what is asked of the heads


def test_sizes_that_are_none_are_refused() -> None:
    for name in ("max_steps", "micro_rows"):
        with pytest.raises(ConfigError, match=rf"trainer\.{name}=0"):
            BitLightningModule(llama(), llama(), **{name: 0})
