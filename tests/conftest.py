"""What holds for every test: offline, one core a worker, the installed package; fixtures lie in `tests/fixtures`."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # for `scripts` and `tests`; last, so that the package that is tested is the installed one
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["PYTHONSAFEPATH"] = "1"  # processes that tests start must run what is installed, not the folder they are in
if "PYTEST_XDIST_WORKER" in os.environ:  # one core a worker, also for the processes that tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator

import pytest

from bitnet_train import progress

FIXTURES = ("trained_models", "native_folders", "packed_folders", "serving", "small_runs")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Bring in the shared fixtures, and torch with them, where tests run: not where they are handed to workers."""
    if not config.pluginmanager.hasplugin("dsession"):
        gc.disable()  # until all is collected: nothing of it is garbage
        for name in FIXTURES:
            config.pluginmanager.import_plugin(f"tests.fixtures.{name}")


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what is there for the whole session: tests, libraries, this process."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with a slow test first: workers take whole files, and none is to be left alone with a long one.

    Those that need a built llama.cpp are marked `toolchain`.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    for item in items:
        if item.path.parent.name == "llama_cpp":
            item.add_marker("toolchain")
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back the `--quiet` of a command that an earlier test ran in this process."""
    monkeypatch.setattr(progress, "_is_quiet", False)


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """Run transformers' BitNet operations as written: it compiles them, which is slow and kept for other CPUs."""
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield
