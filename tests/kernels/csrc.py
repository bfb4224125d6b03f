"""The C++ sources and the flags of each, read from the two tables that the build reads (`kernel_sources.cmake`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
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


def selftest_sources(name: str, folders: tuple[str, ...], architecture: str) -> dict[Path, Flags]:
    """The files of a self-test and of `folders`, for one architecture, each with the flags of its own."""
    rows = list(kernel_rows())
    of_one_isa = {row.source for row in rows}
    plain = [path for folder in folders for path in sorted((CSRC / folder).glob("*.cpp")) if path not in of_one_isa]
    chosen = [row for row in rows if row.family in folders and row.architecture in ("", architecture)]
    return {
        **dict.fromkeys([CSRC / "selftest" / f"{name}.cpp", *plain], ()),
        **{row.source: row.flags for row in chosen},
    }


def sanitized_sources(name: str, folders: tuple[str, ...], supported: Sequence[str]) -> dict[Path, Flags]:
    """The same for x86-64 under sanitizers, in a quarter of the time that the compiler would take.

    Kernels are not optimised: instrumented templates take minutes to optimise and seconds to run as they are. Those of
    instruction sets that are not `supported` here are linked and never run, so they are not instrumented.
    """
    isa_of = {row.source: row.isa for row in kernel_rows()}

    def flags(source: Path, own: Flags) -> Flags:
        if source not in isa_of:
            return own
        return (*own, "-O0") if isa_of[source] in supported else (*own, "-O0", "-fno-sanitize=all")

    return {source: flags(source, own) for source, own in selftest_sources(name, folders, "BITNET_X86").items()}
