"""Tokens a second of greedy decoding, each model in a process of its own and in turn, with what else the machine did.

    python -m scripts.frontier.decode FILE.gguf THREADS NEW_TOKENS REPEATS     a `Row` as JSON, of llama.cpp

Both sides are timed by `bitnet_train.bench.timing`: from a prompt of one token, no sampling, no stopping, no text. Ours
is the native runtime, llama.cpp has its own defaults (float16 keys and values, flash attention). `others_cores` is how
many cores other programs kept busy meanwhile, on average, as Linux counts.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from bitnet_train.bench.row import Row
from bitnet_train.bench.timing import Workload, measure
from bitnet_train.bench.worker import Task, measure_apart, ways
from bitnet_train.errors import FormatError
from bitnet_train.progress import track
from scripts import module_command
from scripts.llama_cpp.libllama import LlamaCpp

Timed = Callable[[], Row]


class LlamaCppRunner:
    """llama.cpp as a `timing.Runner`."""

    def __init__(self, model: LlamaCpp) -> None:
        self._model = model
        self.vocab_size = model.vocab_size

    def run(self, prompt_ids: Sequence[int], new_tokens: int, on_token: Callable[[int], object]) -> None:
        """See `timing.Runner`."""
        for token_id in islice(self._model.steps(prompt_ids), new_tokens):
            on_token(token_id)


def time_in_turn(contenders: Mapping[str, Timed], rounds: int) -> dict[str, dict[str, Any]]:
    """Time every contender once a round; return the facts of each."""
    turns = [label for _ in range(rounds) for label in contenders]
    rows: dict[str, list[Row]] = {label: [] for label in contenders}
    others: dict[str, list[float]] = {label: [] for label in contenders}
    for label in track(turns, "decoding", total=len(turns)):
        with _watched_machine(others[label]):
            rows[label].append(contenders[label]())
    return {label: _facts(rows[label], others[label]) for label in contenders}


def packed_contender(folder: Path, num_threads: int, workload: Workload) -> Timed:
    """Return what times a packed folder, in the native runtime where that knows the architecture."""
    return lambda: measure_apart(Task(str(folder.absolute()), ways(folder)[0], num_threads, None, workload))


def gguf_contender(file: Path, num_threads: int, workload: Workload) -> Timed:
    """Return what times a GGUF in llama.cpp."""
    numbers = (num_threads, workload.new_tokens, workload.repeats)
    command = [*module_command("scripts.frontier.decode"), str(file.absolute()), *map(str, numbers)]

    def timed() -> Row:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise FormatError(f"llama.cpp cannot run {file.name}: {lines[-1]}")
        return Row.from_dict(json.loads(done.stdout.splitlines()[-1]))

    return timed


def _facts(rows: Sequence[Row], others: Sequence[float]) -> dict[str, Any]:
    samples = [sample for row in rows for sample in row.decode_samples]
    return {
        "tokens_per_s": statistics.median(samples),
        "samples": samples,
        "runtime": rows[0].runtime,
        "threads": rows[0].num_threads,
        "others_cores": statistics.median(others),
    }


@contextmanager
def _watched_machine(others: list[float]) -> Iterator[None]:
    """Add to `others` how many cores were busy with other programs than this one's children."""
    before, start, own = _busy_s(), time.monotonic(), _own_s()
    yield
    seconds = time.monotonic() - start
    others.append(max(0.0, (_busy_s() - before - (_own_s() - own)) / seconds))


def _busy_s() -> float:
    """Return the seconds that all cores together have worked, 0 where the system does not say."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, soft_irq, *_ = map(int, words)
    return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF))
    )


def main(file: str, num_threads: str, new_tokens: str, repeats: str) -> int:
    """Time one GGUF and print its row; what llama.cpp refuses is one line on stderr."""
    workload = Workload(1, int(new_tokens), int(repeats))
    sizes = {"context_tokens": workload.new_tokens + 16, "num_threads": int(num_threads)}
    try:
        with LlamaCpp(Path(file), own_attention=True, **sizes) as model:
            timings = measure(LlamaCppRunner(model), workload)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    decode = tuple(workload.new_tokens / seconds for seconds in timings.decode_s)
    prefill = tuple(1 / seconds for seconds in timings.prefill_s)
    print(json.dumps(asdict(Row("llama.cpp", "its own", int(num_threads), prefill, decode))))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
