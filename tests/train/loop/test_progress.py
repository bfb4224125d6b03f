from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from bitnet_train.train.loop.progress import ProgressShown
from tests.fixtures.tiny_run import run, tiny_module


def shown(tmp_path: Path, console: Console, quiet: bool = False) -> str:
    run(tmp_path, tiny_module(steps=4), callbacks=[ProgressShown(quiet, console)], validate_every_steps=0)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.slow
def test_without_a_terminal_the_first_and_the_last_step_are_plain_lines(tmp_path: Path) -> None:
    lines = shown(tmp_path, Console(file=io.StringIO(), width=100)).splitlines()
    pattern = r"step (\d)/4  loss \d+\.\d{4}  [\d,]+ tokens/s  \d+:\d\d left"
    assert [re.fullmatch(pattern, line)[1] for line in lines] == ["1", "4"]


@pytest.mark.slow
def test_the_newest_held_out_perplexity_stands_beside_the_loss(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    run(tmp_path, tiny_module(steps=4), callbacks=[ProgressShown(False, console)], validate_every_steps=2)
    first, last = console.file.getvalue().splitlines()
    assert "held-out" not in first
    assert re.search(r"step 4/4 .* held-out perplexity \d+\.\d\d", last)


@pytest.mark.slow
def test_a_terminal_gets_a_bar_with_loss_speed_and_time(tmp_path: Path) -> None:
    text = shown(tmp_path, Console(file=io.StringIO(), width=100, force_terminal=True))
    assert re.search(r"step 4/4  loss \d+\.\d{4}  [\d,]+ tokens/s", text)
    assert re.search(r"\d:\d\d:\d\d", text)


@pytest.mark.slow
def test_quiet_says_nothing(tmp_path: Path) -> None:
    assert shown(tmp_path, Console(file=io.StringIO(), width=100), quiet=True) == ""


@pytest.mark.slow
def test_the_time_left_goes_by_what_the_steps_that_are_left_read(tmp_path: Path) -> None:
    def left_at_first(epochs: Callable[[int], float] | None) -> int:
        console = Console(file=io.StringIO(), width=100)
        shown = ProgressShown(False, console, epochs)
        run(tmp_path / str(epochs), tiny_module(steps=4), callbacks=[shown], validate_every_steps=0)
        found = re.search(r"(\d+):\d\d left", console.file.getvalue())
        assert found is not None
        return int(found[1])

    assert left_at_first(None) < 60
    assert left_at_first(lambda step: step if step < 4 else 1e6) > 60, "the last step reads a million times as much"
