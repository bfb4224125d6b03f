"""The warm process, once a worker, and the runs that faults are done to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.commands import Warm
from tests.faults.injected import Signal
from tests.faults.runs import BEGUN, STEP, WORDS, copy_of, steps_of, weights_of

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the campaign; it takes minutes as a whole, so the quick run leaves it out, but for its table.

    Faults are injected as Linux allows: limits, capabilities, mounts, /proc.
    """
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("faults")
            if item.path.name != "test_table.py":
                item.add_marker("slow")
                item.add_marker(pytest.mark.skipif(sys.platform != "linux", reason="faults are injected on Linux"))


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Return the process that commands are forked from."""
    process = Warm()
    yield process
    process.close()


@pytest.fixture(scope="session")
def whole_run(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    done = warm.run(folder, *WORDS, "run.dir=run")
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture(scope="session")
def whole(whole_run: Path) -> dict[str, Any]:
    """Return the weights and moments of the run that nothing happens to."""
    return weights_of(whole_run)


@pytest.fixture(scope="session")
def begun(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was killed after some steps; tests copy it."""
    folder = tmp_path_factory.mktemp("begun")
    kill = Signal(STEP, "SIGKILL", number=BEGUN + 1)
    done = warm.run(folder, *WORDS, "run.dir=run", faults=(kill,))
    assert done.code == -9, done.err
    assert steps_of(folder / "run") == [1, 2]
    warm.ask(do="know", word=str(folder / "run"))
    return folder / "run"


@pytest.fixture(scope="session")
def packed(warm: Warm, whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the whole run, merged and packed; tests copy it."""
    run_dir = copy_of(whole_run, tmp_path_factory.mktemp("packed"))
    for verb in ("merge", "export"):
        done = warm.run(run_dir.parent, verb, run_dir)
        assert done.code == 0, done.err
    return run_dir
