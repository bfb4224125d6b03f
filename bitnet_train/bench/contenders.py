"""Who takes part in `bitnet-train bench`: each contender is a call that measures one row in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bitnet_train.bench.llama_cpp import TOOL, find_llama_bench, llama_row
from bitnet_train.bench.row import Row
from bitnet_train.bench.timing import Workload
from bitnet_train.bench.worker import Task, Way, measure_apart, ways
from bitnet_train.errors import ConfigError
from bitnet_train.kernels.isa import REFERENCE, available_isas
from bitnet_train.word_as_path import is_file

Contender = Callable[[], Row]


def contenders(
    artefact: Path, workload: Workload, threads: Sequence[int], isas: Sequence[str], against: str | None
) -> list[Contender]:
    """Return the packed folder on every instruction set and number of threads, then the float model `against`.

    Where there is a faster way than the Hugging Face modules, the modules run on the best instruction set only. Empty
    `threads` are 1 and every core, empty `isas` all compiled ones. Raises ConfigError for an unknown instruction set.
    """
    best, *slower = ways(artefact)
    chosen = _isas(isas)
    sides: list[tuple[str, Way, str | None]] = []
    sides.extend((str(artefact), "modules" if isa == REFERENCE else best, isa) for isa in chosen)
    if chosen != [REFERENCE]:
        sides.extend((str(artefact), way, chosen[0]) for way in slower)
    if against is not None:
        sides.append((against, "float", None))
    return [
        partial(measure_apart, Task(source, way, number, isa, workload))
        for source, way, isa in sides
        for number in numbers_of_threads(threads)
    ]


def llama_contenders(
    gguf: str | None, llama_bench: str | None, workload: Workload, threads: Sequence[int]
) -> list[Contender]:
    """Return llama.cpp on `gguf` for every number of threads; nothing without a file.

    Raises ConfigError when the file or the program is not there.
    """
    if gguf is None:
        return []
    if not is_file(gguf):
        raise ConfigError(f"`bench.gguf={gguf}`: there is no such file. Give a *.gguf file, or leave it out.")
    tool = find_llama_bench(llama_bench)
    if tool is None:
        raise ConfigError(
            f"`bench.gguf={gguf}` needs llama.cpp's `{TOOL}`, which is not on the PATH. "
            f"Give it as `bench.llama_bench=PATH`, or leave `bench.gguf` out."
        )
    return [partial(llama_row, tool, Path(gguf), n, workload) for n in numbers_of_threads(threads)]


def numbers_of_threads(threads: Sequence[int]) -> list[int]:
    """Return the numbers asked for, or 1 and every core."""
    return list(threads) or sorted({1, os.cpu_count() or 1})


def _isas(isas: Sequence[str]) -> list[str]:
    compiled = [isa for isa in available_isas() if isa != REFERENCE] or [REFERENCE]
    unknown = [isa for isa in isas if isa not in available_isas()]
    if unknown:
        raise ConfigError(f"`bench.isas` names `{unknown[0]}`. Allowed here: {', '.join(available_isas())}.")
    return list(isas) or compiled
