"""A run that goes back to an earlier checkpoint leaves the later ones where no plain resume takes them up."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from bitnet_train.train.loop.checkpoint import AtomicCheckpointIO, set_aside
from bitnet_train.train.loop.checkpoint_manifest import ABANDONED, list_checkpoints
from bitnet_train.train.loop.resume_choice import check_choice
from bitnet_train.train.loop.signals import Interrupted
from tests.fixtures.tiny_run import DieAt, run, tiny_module

KEPT = {"save_every_steps": 1, "keep_last": 9, "validate_every_steps": 0}
LAST, BACK = 5, 2


def names(folder: Path) -> list[str]:
    return [path.name for path in list_checkpoints(folder)]


@pytest.fixture(scope="module")
def gone_back(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that had saved its steps to `LAST`, went back to `BACK`, and was asked to end a step later."""
    folder = tmp_path_factory.mktemp("run")
    run(folder, tiny_module(steps=LAST), **KEPT)
    checkpoint, cut = folder / "checkpoints" / f"step-{BACK:06d}", DieAt(BACK, signal.SIGTERM)
    with (
        pytest.raises(Interrupted),
        pytest.warns(UserWarning, match="goes back to step 2. What .*3, step-000004, step"),
    ):
        run(folder, tiny_module(steps=LAST), resume=str(checkpoint), callbacks=[cut], **KEPT)
    return folder


def test_what_was_saved_later_is_set_aside_when_the_new_way_saves(gone_back: Path) -> None:
    assert names(gone_back / "checkpoints") == ["step-000001", "step-000002", "step-000003"]
    assert names(gone_back / "checkpoints" / ABANDONED) == ["step-000003", "step-000004", "step-000005"]


def test_a_plain_resume_takes_the_new_way_and_a_name_the_old_one(gone_back: Path) -> None:
    directory = gone_back / "checkpoints"
    assert check_choice("auto", directory) == directory / f"step-{BACK + 1:06d}"
    old = directory / ABANDONED / f"step-{LAST:06d}"
    assert check_choice(str(old), directory) == old
    assert AtomicCheckpointIO().load_checkpoint(old)["progress"]["step"] == LAST


def test_a_run_that_does_not_come_to_save_leaves_all_where_it_is(tmp_path: Path) -> None:
    run(tmp_path, tiny_module(steps=2), **KEPT)
    with pytest.raises(ZeroDivisionError), pytest.warns(UserWarning, match="goes back to step 1"):
        run(
            tmp_path,
            tiny_module(steps=2),
            resume=str(tmp_path / "checkpoints/step-000001"),
            callbacks=[Fails()],
            **KEPT,
        )
    assert names(tmp_path / "checkpoints") == ["step-000001", "step-000002"]


class Fails(DieAt):
    """Raise before the first step."""

    def __init__(self) -> None:
        super().__init__(1, 0)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        raise ZeroDivisionError


def test_one_of_the_same_step_that_was_set_aside_before_gives_way(tmp_path: Path) -> None:
    for content in ("first", "second"):
        (tmp_path / "step-000007").mkdir()
        (tmp_path / "step-000007" / "state.pt").write_text(content)
        set_aside(list_checkpoints(tmp_path))
    assert (tmp_path / ABANDONED / "step-000007" / "state.pt").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == [ABANDONED]
