from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bitnet_train.packed import read_manifest
from bitnet_train.runtime.native.description import write_native
from tests.standalone.built import QUICK, built
from tests.standalone.library import Library, declared

if TYPE_CHECKING:
    from tests.fixtures.native_folders import MakeFolder

MakeNative = Callable[..., Path]


@pytest.fixture(scope="session")
def kept(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for builds, which outlives the session where pytest keeps anything."""
    cache = getattr(pytestconfig, "cache", None)
    return cache.mkdir("standalone") if cache else tmp_path_factory.mktemp("standalone")


@pytest.fixture(scope="session")
def here(kept: Path) -> Path:
    """The folder with program and library for this machine."""
    return built(kept, "all", *QUICK)


@pytest.fixture(scope="session")
def program(here: Path) -> Path:
    return here / "bitnet-run"


@pytest.fixture(scope="session")
def c(here: Path) -> Any:
    return declared(next(here.glob("libbitnet.*")))


@pytest.fixture(scope="session")
def native(make_folder: MakeFolder, tmp_path_factory: pytest.TempPathFactory) -> MakeNative:
    """Return a folder of `make_folder` that also has native.json."""
    root, made = tmp_path_factory.mktemp("native"), {}

    def make(*args: Any, **how: Any) -> Path:
        source = make_folder(*args, **how)
        if source not in made:
            made[source] = shutil.copytree(source, root / source.name)
            write_native(made[source], read_manifest(source))
        return made[source]

    return make


@pytest.fixture(scope="session")
def bundled(pretrained_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, with its tokenizer."""
    folder = shutil.copytree(pretrained_folder, tmp_path_factory.mktemp("bundled") / "out")
    write_native(folder, read_manifest(folder))
    return folder


@pytest.fixture
def load(c: Any) -> Iterator[Callable[..., Library]]:
    opened: list[Library] = []

    def open_folder(folder: Path, threads: int = 1) -> Library:
        opened.append(Library(c, folder, threads))
        return opened[-1]

    yield open_folder
    for library in opened:
        library.close()
