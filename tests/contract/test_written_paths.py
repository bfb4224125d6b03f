"""What pages and comments name is there: files of this repository, its modules, commands that run scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bitnet_train"
WRITTEN = ("*.md", ".ci/run", ".github/**/*.yml", "docs/*.md", "recipes/**/*.md", "recipes/**/*.yaml")
WRITTEN += ("bitnet_train/**/*.py", "bitnet_train/**/*.cpp", "scripts/check", "scripts/**/*.py")
HISTORY = "CHANGELOG.md"  # tells of files that were

COMMAND = re.compile(r"python -m (scripts(?:\.[a-z]\w*)+)")
FOLDERS = "bitnet_train|configs|docs|recipes|scripts|tests"
FILE = re.compile(rf"(?<![\w./{{])((?:{FOLDERS})/[a-z0-9_/]+\.(?:py|md|yaml|cpp|h|svg))\b")
MODULE = re.compile(
    r"`(?!kernels\.inc)((?:exporters|formats|importers|kernels|quant|runtime|train|validation)(?:\.[a-z]\w*)+)"
)


def written() -> list[Path]:
    found = {path for pattern in WRITTEN for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.name not in (HISTORY, Path(__file__).name))


def is_module(name: str) -> bool:
    """Whether a dotted name below the package is a room, a file, or something of one."""
    place, parts = PACKAGE, name.split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    return not parts or (place / f"{parts[0]}.py").is_file() or parts[0] in (place / "__init__.py").read_text()


def is_script(name: str) -> bool:
    """Whether `python -m NAME` runs a file, or a folder with a `__main__.py`."""
    place = ROOT / name.replace(".", "/")
    return place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()


def missing(text: str) -> list[str]:
    """Return what a text names and nobody finds."""
    commands = [name for name in COMMAND.findall(text) if not is_script(name)]
    files = [name for name in FILE.findall(text) if not (ROOT / name).exists()]
    return commands + files + [name for name in MODULE.findall(text) if not is_module(name)]


def test_what_pages_and_comments_name_is_there() -> None:
    gone = {path.relative_to(ROOT).as_posix(): missing(path.read_text(encoding="utf-8")) for path in written()}
    assert {name: what for name, what in gone.items() if what} == {}


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("python -m scripts.bench.kernels and scripts/bench/kernels.py, as `quant.scheme.WeightScheme`", []),
        ("python -m scripts.fuzz --all", []),
        ("python -m scripts.bench.nothing", ["scripts.bench.nothing"]),
        ("python -m scripts.bench", ["scripts.bench"]),
        ("see docs/nothing.md", ["docs/nothing.md"]),
        ("`runtime.evaluation` and `train.optim`", ["runtime.evaluation", "train.optim"]),
    ],
)
def test_what_is_gone_is_found(text: str, gone: list[str]) -> None:
    assert missing(text) == gone
