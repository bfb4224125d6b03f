"""Tests lie where what they test lies: `tests/ROOM/test_NAME.py` for `bitnet_train/ROOM/NAME.py` or a room NAME.

Where a file has tests of several kinds, the others are called `test_NAME_KIND.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "bitnet_train"
# Of more than a file, or of none there:
APART = {"browser", "contract", "faults", "fixtures", "llama_cpp", "recipes", "scripts", "standalone"}
EXCEPTIONS = {
    "exporters/test_mixed_schemes.py": "one model through every exporter",
    "kernels/test_cross_compiled.py": "kernels/csrc, as a program of its own",
    "runtime/native/test_cache_memory.py": "kernels/csrc, the cache of keys and values",
}


def is_mirrored(test: Path) -> bool:
    """Whether a test, named from `tests/`, has a file or a room of its name at the same place of the package."""
    room, name = PACKAGE / test.parent, test.stem.removeprefix("test_")
    if not room.is_dir():
        return False
    names = {path.stem.strip("_") for path in room.iterdir() if path.suffix == ".py" or path.is_dir()} | {room.name}
    return any(name == each or name.startswith(f"{each}_") for each in names)


def test_every_test_lies_beside_what_it_tests() -> None:
    tests = [path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]
    apart = [test.as_posix() for test in tests if test.parts[0] not in APART and not is_mirrored(test)]
    assert sorted(apart) == sorted(EXCEPTIONS)


@pytest.mark.parametrize(
    ("test", "mirrored"),
    [
        ("quant/test_scheme.py", True),
        ("quant/test_scheme_laws.py", True),
        ("verbs/test_import.py", True),
        ("test_main.py", True),
        ("report/test_report.py", True),
        ("quant/test_schemes.py", False),
        ("stages/test_run.py", False),
    ],
)
def test_a_name_alone_decides(test: str, mirrored: bool) -> None:
    assert is_mirrored(Path(test)) is mirrored
