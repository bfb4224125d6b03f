"""A run with a secret in its configuration writes nothing that others may read; one without is read as ever."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.config.compose import compose
from bitnet_train.run.hold import holding
from tests.fixtures.small_runs import small

SECRET = "hf_plantedSecret0123456789abcdef"
OTHERS = 0o077


@pytest.fixture(autouse=True)
def common_mask() -> Iterator[None]:
    """Let new files be readable for all, as they mostly are."""
    before = os.umask(0o022)
    yield
    assert os.umask(before) == 0o022


def modes(folder: Path) -> dict[str, int]:
    """Return the mode of every file and folder below a folder, by name."""
    return {path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


@pytest.mark.parametrize(("prompt", "mode"), [(f"My token is {SECRET}", 0o600), ("Once upon a time", 0o644)])
def test_a_verb_writes_for_its_owner_alone_where_the_configuration_holds_a_secret(
    prompt: str, mode: int, tmp_path: Path
) -> None:
    words = small(tmp_path / "run", f"generate.prompt={prompt}")
    with holding(compose("quickstart", words).config, "run", is_new=True) as held:
        place = Path(str(held.run.dir)) / "anything"
        place.touch()
        assert stat.S_IMODE(place.stat().st_mode) == mode


@pytest.mark.slow
def test_no_file_of_a_run_with_a_secret_can_be_read_by_others(tmp_path: Path) -> None:
    assert main(["run", "quickstart", "--quiet", *small(tmp_path / "run", f"generate.prompt=say {SECRET}")]) == 0
    made = modes(tmp_path / "run")
    assert {"config.yaml", "facts/run.json", "metrics.jsonl", "report.html", "artefact/manifest.json"} <= made.keys()
    assert {name: oct(mode) for name, mode in made.items() if mode & OTHERS} == {}
