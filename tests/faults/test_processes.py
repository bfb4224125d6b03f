"""F32 to F34: processes that train together, and processes that meet in one folder."""

from __future__ import annotations

import json
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import Running, Warm, wait_for
from tests.faults.injected import Clock, Fault, Pause, Signal
from tests.faults.runs import BEGUN, MODEL, STEP, STEPS, WORDS, copy_of, left_over, resumes_to, steps_of
from tests.fixtures.rounding import CHAIN, CONDITION

TWO = ("trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu")
ONE = ("trainer.devices=1", "trainer.strategy=auto")
SPREAD = (*TWO, "trainer.strategy=fsdp")
ROUNDING = CHAIN * CONDITION * 2**-24


@dataclass(frozen=True)
class Ranks:
    """Two processes as torchrun starts them."""

    warm: Warm
    folder: Path

    def start(self, *words: str | Path, first: tuple[Fault, ...] = (), second: tuple[Fault, ...] = ()) -> list[Running]:
        """Start both."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}
        return [
            self.warm.start(self.folder, *words, faults=faults, **shared, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank, faults in enumerate((first, second))
        ]


@pytest.mark.parametrize("two", [TWO, SPREAD], ids=["ddp", "fsdp"])
def test_a_rank_that_is_killed_takes_the_other_one_with_it_and_the_checkpoints_stay(
    warm: Warm, tmp_path: Path, two: tuple[str, ...]
) -> None:
    ranks = Ranks(warm, tmp_path)
    first, second = ranks.start(*WORDS, *two, "run.dir=run", second=(Signal(STEP, "SIGKILL", number=BEGUN + 1),))
    assert second.wait().code == -9
    done = first.wait()
    assert done.code == 1, done.err
    assert "Another process of the run has ended" in done.said
    assert steps_of(tmp_path / "run") == [1, 2]
    alone = copy_of(tmp_path / "run", tmp_path / "alone")
    assert [each.wait().code for each in ranks.start("train", "run")] == [0, 0]
    assert steps_of(tmp_path / "run")[-1] == STEPS
    assert left_over(tmp_path / "run") == []
    assert warm.run(tmp_path, "merge", "run").code == 0
    goes_on_alone(warm, alone, tmp_path / "run")


def goes_on_alone(warm: Warm, run_dir: Path, beside: Path) -> None:
    """One process goes on from what two left, as the two at `beside` did.

    Its first step has their weights and rows, and nothing is drawn; its loss is a sum over the same tokens, of which
    all terms are positive, in another order: `tests/fixtures/rounding.py` derives the bound. What follows comes of
    weights that a step of Adam has moved, by as much where a gradient is rounded to the other side of zero.
    """
    done = warm.run(run_dir.parent, "train", run_dir, *ONE)
    assert done.code == 0, done.err
    assert steps_of(run_dir)[-1] == STEPS
    one, two = (losses(folder) for folder in (run_dir, beside))
    assert one.keys() == two.keys() == set(range(1, STEPS + 1))
    assert one[BEGUN + 1] == pytest.approx(two[BEGUN + 1], rel=ROUNDING)
    assert warm.run(run_dir.parent, "merge", run_dir).code == 0


def losses(run_dir: Path) -> dict[int, float]:
    """Return the loss of every step."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.parametrize("two", [TWO, SPREAD], ids=["ddp", "fsdp"])
def test_a_signal_to_one_rank_ends_both_after_the_same_step(warm: Warm, tmp_path: Path, two: tuple[str, ...]) -> None:
    ranks = Ranks(warm, tmp_path)
    first, second = ranks.start(*WORDS, *two, "run.dir=run", second=(Signal(STEP, number=BEGUN),))
    assert first.wait().code == 143
    assert second.wait().code in (0, 143), "it is for the first to tell"
    assert steps_of(tmp_path / "run")[-1] == BEGUN
    assert [each.wait().code for each in ranks.start("train", "run")] == [0, 0]
    assert steps_of(tmp_path / "run")[-1] == STEPS


def test_a_slow_rank_is_waited_for(warm: Warm, tmp_path: Path) -> None:
    reached, go_on = tmp_path / "reached", tmp_path / "go_on"
    slow = Pause(STEP, str(reached), str(go_on), number=BEGUN)
    both = Ranks(warm, tmp_path).start(*WORDS, *TWO, "run.dir=run", second=(slow,))
    wait_for(reached, both[1])
    assert BEGUN not in steps_of(tmp_path / "run"), "the other rank is not ahead"
    go_on.touch()
    assert [each.wait().code for each in both] == [0, 0]
    assert steps_of(tmp_path / "run")[-1] == STEPS


def test_a_second_process_in_one_run_is_refused_with_the_first_ones_id(
    warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir, reached, go_on = copy_of(begun, tmp_path), tmp_path / "reached", tmp_path / "go_on"
    first = warm.start(tmp_path, "train", run_dir, faults=(Pause(STEP, str(reached), str(go_on)),))
    wait_for(reached, first)
    second = warm.run(tmp_path, "train", run_dir)
    go_on.touch()
    assert second.code == 1, second.err
    assert str(first.pid) in second.said
    assert first.wait().code == 0
    resumes_to(whole, warm, run_dir)


def test_the_lock_of_a_killed_process_is_taken_over(
    warm: Warm, begun: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    run_dir = copy_of(begun, tmp_path)
    assert warm.run(tmp_path, "train", run_dir, faults=(Signal(STEP, "SIGKILL"),)).code == -signal.SIGKILL
    resumes_to(whole, warm, run_dir)


def test_runs_of_the_same_second_have_folders_of_their_own(warm: Warm, tmp_path: Path) -> None:
    words = ("train", "quickstart", *MODEL, "trainer.max_steps=1", "trainer.validate_every_steps=0", "run.root=runs")
    for _ in range(2):
        done = warm.run(tmp_path, *words, faults=(Clock(1_790_000_000.0),))
        assert done.code == 0, done.err
    assert [steps_of(folder) for folder in (tmp_path / "runs" / "quickstart").iterdir()] == [[1], [1]]
