"""The C++ sources and the flags of each, read from the two tables that the build reads (`kernel_sources.cmake`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CSRC = Path(__file__).parents[2] / "bitnet_train" / "kernels" / "csrc"
TABLE = CSRC / "kernels.inc"
FEATURES = CSRC / "core" / "cpu_features.inc"

Flags = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One line of kernels.inc; `architecture` is the macro that it stands under, "" where it is for every CPU."""

    architecture: str
    macro: str
    family: str
    name: str
    isa: str
    predicate: str

    @property
    def source(self) -> Path:
        return CSRC / self.family / f"{self.name}_{self.isa}.cpp"

    @property
    def features(self) -> list[str]:
        return re.findall(r"cpu\.(\w+)", self.predicate)

    @property
    def flags(self) -> Flags:
        """Those for GCC."""
        known = feature_flags()
        return tuple(flag for feature in self.features for flag in known[feature])


def kernel_rows() -> Iterator[Row]:
    architecture = ""
    for line in TABLE.read_text().splitlines():
        if line.startswith("#"):
            architecture = line.removeprefix("#ifdef ") if line.startswith("#ifdef") else ""
        elif row := re.fullmatch(r"(KERNEL|PART)\((\w+), (\w+), (\w+), (.+)\)", line):
            yield Row(architecture, *row.groups())


def feature_flags() -> dict[str, Flags]:
    """The flags of each feature for GCC."""
    rows = re.findall(r'^FEATURE\((\w+),\s*"([^"]*)",\s*"([^"]*)"\)', FEATURES.read_text(), re.MULTILINE)
    return {name: (*flags.split(), *of_gcc.split()) for name, flags, of_gcc in rows}


def selftest_sources(name: str, folders: tuple[str, ...], architecture: str, *kernel_flags: str) -> dict[Path, Flags]:
    """The files of a self-test and of `folders`, for one architecture; kernels get `kernel_flags` beside their own."""
    rows = list(kernel_rows())
    of_one_isa = {row.source for row in rows}
    plain = [path for folder in folders for path in sorted((CSRC / folder).glob("*.cpp")) if path not in of_one_isa]
    chosen = [row for row in rows if row.family in folders and row.architecture in ("", architecture)]
    return {
        **dict.fromkeys([CSRC / "selftest" / f"{name}.cpp", *plain], ()),
        **{row.source: (*row.flags, *kernel_flags) for row in chosen},
    }
