"""One row of `bitnet-train bench`, measured in a process of its own: `python -m bitnet_train.bench.worker`.

A process of its own has the instruction set and the number of threads that were asked for from its first instruction,
and a peak of memory that no other model left behind. The task goes in as JSON on the command line, the row comes back
as JSON on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from bitnet_train.bench.row import Memory, Row
from bitnet_train.bench.timing import Runner, Workload, measure, measure_contexts
from bitnet_train.errors import BitnetTrainError, FormatError
from bitnet_train.kernels.isa import ENVIRONMENT_VARIABLE, backend
from bitnet_train.runtime.memory import peak_resident_bytes, reset_peak, resident_bytes
from bitnet_train.runtime.native.support import reason_against

Way = Literal["native", "modules", "float"]
_EXPECTED = 3  # exit code of an error with a message


@dataclass(frozen=True)
class Task:
    """Which model, which way, where.

    `way`: "native" = the packed runtime, "modules" = Hugging Face modules over the packed folder, "float" = a float
    model that `load_pretrained` knows. `isa`: None lets the CPU decide.
    """

    source: str
    way: Way
    num_threads: int
    isa: str | None = None
    workload: Workload = field(default_factory=Workload)


def measure_apart(task: Task, pin: tuple[int, ...] = ()) -> Row:
    """Run a task in a fresh process, on the given CPUs only if any are named.

    Raises FormatError with the message of the process when the model cannot be loaded or run that way.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(task.num_threads)}
    environment |= {} if task.isa is None else {ENVIRONMENT_VARIABLE: task.isa}
    command = [sys.executable, "-P", "-m", __name__, json.dumps(asdict(task))]
    done = subprocess.run([*pinned(pin), *command], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise FormatError(f"{task.source} ({task.way}, {task.isa or 'default'}): {lines[-1]}")
    return Row.from_dict(json.loads(done.stdout.splitlines()[-1]))


def pinned(cpus: tuple[int, ...]) -> list[str]:
    """Return the command words that confine a process to these CPUs; none for no CPUs."""
    return ["taskset", "-c", ",".join(map(str, cpus))] if cpus else []


def ways(folder: Path) -> tuple[Way, ...]:
    """Return how this installation can run the packed folder, the fastest first."""
    return ("native", "modules") if reason_against(folder) is None else ("modules",)


def run_task(task: Task) -> Row:
    """Load and measure here, in this process."""
    load = _loader(task)
    isa = backend() if task.way != "float" else "torch"
    before = resident_bytes() or 0
    reset_peak()
    start = time.perf_counter()
    runner = load()
    load_s = time.perf_counter() - start
    timings = measure(runner, task.workload)
    memory = Memory.of(before, resident_bytes(), peak_resident_bytes())
    contexts = measure_contexts(runner, task.workload)  # after memory was looked at: a long context has a large cache
    return Row(
        task.way,
        isa,
        task.num_threads,
        tuple(task.workload.prompt_tokens / seconds for seconds in timings.prefill_s),
        tuple(task.workload.new_tokens / seconds for seconds in timings.decode_s),
        load_s,
        memory,
        {str(length): 1000 * seconds for length, seconds in contexts.items()},
    )


def _loader(task: Task) -> Callable[[], Runner]:
    """Return what loads the model, with everything imported that it needs."""
    if task.way == "native":
        from bitnet_train.bench.native_passes import load_native

        return lambda: load_native(task.source, task.num_threads)
    import torch

    from bitnet_train.bench.torch_passes import ModuleRunner

    torch.set_num_threads(task.num_threads)
    if task.way == "modules":
        from bitnet_train.runtime.load import load

        return lambda: ModuleRunner(load(task.source))
    from bitnet_train.importers.load import load_pretrained

    return lambda: ModuleRunner(load_pretrained(task.source).model)


def main(text: str) -> int:
    """Measure the task in `text` and print its row; an expected failure is one line on stderr."""
    fields = json.loads(text)
    sizes = fields.pop("workload")
    task = Task(**fields, workload=Workload(**{**sizes, "contexts": tuple(sizes["contexts"])}))
    try:
        print(json.dumps(asdict(run_task(task))))
    except BitnetTrainError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return _EXPECTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
