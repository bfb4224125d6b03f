"""llama.cpp as the peer to beat: run `llama-bench` on a GGUF and read its figures.

`llama-bench` times a prefill into an empty cache and single steps from an empty cache, after a warm-up of its own; our
`bench.timing.measure` does the same. Memory is the peak of its process, which maps the whole file: comparable with the
size of the file and the cache, not with a process that also holds torch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bitnet_train.bench.row import Memory, Row
from bitnet_train.bench.timing import Workload
from bitnet_train.bench.worker import pinned
from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.runtime.memory import peak_resident_bytes

TOOL = "llama-bench"
ENVIRONMENT_VARIABLE = "BITNET_TRAIN_LLAMA_BENCH"
_LOOK_EVERY_S = 0.1


def find_llama_bench(given: str | None = None) -> Path | None:
    """Return the tool: the one given, else of the environment, else on the PATH; None where there is none.

    Raises ConfigError when one was named, but cannot be run.
    """
    named = given or os.environ.get(ENVIRONMENT_VARIABLE)
    found = shutil.which(named or TOOL)
    if named and not found:
        raise ConfigError(
            f"`{'bench.llama_bench' if given else ENVIRONMENT_VARIABLE}={named}` is no program that can be run. "
            f"Give the path of `{TOOL}` of a llama.cpp build, or unset it to look on the PATH."
        )
    return Path(found) if found else None


def llama_row(
    tool: Path,
    gguf: Path,
    num_threads: int,
    workload: Workload,
    pin: tuple[int, ...] = (),
    watch: Callable[[], object] = lambda: None,
) -> Row:
    """Measure one GGUF; the `contexts` are decoded after so many tokens.

    `watch` is called all the while; what it raises ends llama.cpp, and passes.

    Raises FormatError with llama.cpp's message when it cannot run the file.
    """
    sizes = ["-p", str(workload.prompt_tokens), "-n", str(workload.new_tokens)]
    tests, process_peak = _run(tool, gguf, num_threads, sizes, workload.repeats, pin, watch)
    prefill = next(test for test in tests if test["n_gen"] == 0)
    decode = next(test for test in tests if test["n_prompt"] == 0)
    name = str(decode["model_type"]).split(maxsplit=2)[-1]  # "llama 135M Q8_0"
    contexts: dict[str, float] = {}
    for length in workload.contexts:
        depth = ["-p", "0", "-n", str(workload.new_tokens), "-d", str(length)]
        deep, _ = _run(tool, gguf, num_threads, depth, 1, pin, watch)
        contexts[str(length)] = 1000 / float(deep[0]["avg_ts"])
    return Row(
        f"llama.cpp {name}",
        str(decode["build_commit"]),
        num_threads,
        tuple(prefill["samples_ts"]),
        tuple(decode["samples_ts"]),
        memory=Memory(process_peak=process_peak),
        context_ms=contexts,
    )


def _run(
    tool: Path,
    gguf: Path,
    num_threads: int,
    sizes: Sequence[str],
    repeats: int,
    pin: tuple[int, ...],
    watch: Callable[[], object],
) -> tuple[list[dict[str, Any]], int | None]:
    """Return the tests that llama-bench reports, and the peak of its resident memory."""
    words = ["-m", str(gguf), *sizes, "-t", str(num_threads), "-r", str(repeats), "-o", "json"]
    command = [*pinned(pin), str(tool), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak: int | None = None
    try:
        while process.poll() is None:
            watch()
            peak = peak_resident_bytes(process.pid) or peak
            time.sleep(_LOOK_EVERY_S)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    out, complaints = process.communicate()
    if process.returncode:
        lines = [line for line in complaints.splitlines() if "error" in line] or [f"exit code {process.returncode}"]
        raise FormatError(f"`{TOOL}` cannot run {gguf}: {lines[0]}")
    return json.loads(out), peak
