"""How fast the float model is in torch, its swapped self in the native runtime, and llama.cpp where it is found.

One token after another, as `bench` times them, after a prompt of one token; medians. Memory is what the model takes:
of the float one its weights, of the native one what the runtime says, of llama.cpp the peak of its process.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bitnet_train.bench.llama_cpp import find_llama_bench, llama_row
from bitnet_train.bench.native_passes import NativeRunner
from bitnet_train.bench.timing import WARM_UP_TOKENS, Runner, Workload, timed
from bitnet_train.bench.torch_passes import ModuleRunner
from bitnet_train.errors import BitnetTrainError
from bitnet_train.importers.found import find_model
from bitnet_train.kernels.isa import backend
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.runtime.native.support import reason_against
from bitnet_train.serve.playground.workbench.opened import Opened
from bitnet_train.serve.playground.workbench.packing import packed
from bitnet_train.serve.playground.workbench.task import Task

NEW_TOKENS, REPEATS = 32, 3


def benchmark(opened: Opened, task: Task, choice: Mapping[str, str], scratch: Path) -> dict[str, Any]:
    """Measure each that can be; rows are told as they come."""
    rows: list[dict[str, Any]] = []

    def tell(row: dict[str, Any]) -> None:
        rows.append(row)
        task.say("row", **row)

    task.progress(0, 3, "the float model in torch")
    tell(_float_row(opened, task))
    task.progress(1, 3, "the swapped model, packed")
    schemes = opened.schemes(choice) if choice else {}
    if schemes or opened.is_one_bit:
        with packed(opened, schemes, scratch) as folder:
            task.check()
            _native(folder, task, tell, _counted(len(schemes)) if schemes else "1-bit layers")
    task.progress(2, 3, "llama.cpp")
    _llama(opened, task, tell)
    task.progress(3, 3, "done")
    return {"rows": rows}


def _float_row(opened: Opened, task: Task) -> dict[str, Any]:
    held = {id(part): part.numel() * part.element_size() for part in opened.model.parameters()}
    seconds = _seconds(ModuleRunner(opened.model), task)
    what = "1-bit layers, torch" if opened.is_one_bit else "float32, torch"
    return _row(what, seconds, sum(held.values()), "torch", torch.get_num_threads())


def _native(folder: Path, task: Task, tell: Any, what: str) -> None:
    reason = reason_against(folder)
    if reason is not None:
        task.log(f"The native runtime does not compute the swapped model: {reason}.")
        return
    model = NativeModel.load(folder, num_threads=torch.get_num_threads())
    seconds = _seconds(NativeRunner(model), task)
    memory = sum(model.memory_bytes().values())
    tell(_row(f"{what}, native", seconds, memory, backend(), torch.get_num_threads()))


def _counted(num_layers: int) -> str:
    return f"{num_layers} layer{'s' * (num_layers != 1)} swapped"


def _llama(opened: Opened, task: Task, tell: Any) -> None:
    found = find_model(opened.loaded.source)
    try:
        tool = find_llama_bench()
        if tool is None:
            return task.log(
                "llama.cpp is not found: put `llama-bench` on the PATH, or name it by an environment variable."
            )
        if found.kind != "gguf":
            return task.log("llama.cpp runs GGUF files, and this model is none.")
        workload = Workload(prompt_tokens=1, new_tokens=NEW_TOKENS, repeats=REPEATS)
        row = llama_row(tool, found.path, torch.get_num_threads(), workload, watch=task.check)
    except BitnetTrainError as error:
        return task.log(f"llama.cpp: {error}")
    seconds = NEW_TOKENS / row.decode_tokens_per_s
    return tell(_row(row.runtime, seconds, row.memory.process_peak, row.isa, row.num_threads))


def _seconds(runner: Runner, task: Task) -> float:
    """Median seconds of `NEW_TOKENS` tokens."""
    watched = _Watched(runner, task)
    timed(watched, [0], WARM_UP_TOKENS)
    return statistics.median(sum(timed(watched, [0], NEW_TOKENS)) for _ in range(REPEATS))


class _Watched:
    """A runner that ends with its job."""

    def __init__(self, runner: Runner, task: Task) -> None:
        self._runner, self._task, self.vocab_size = runner, task, runner.vocab_size

    def run(self, prompt_ids: Any, new_tokens: int, on_token: Any) -> None:
        def watched(token: int) -> None:
            self._task.check()
            on_token(token)

        self._runner.run(prompt_ids, new_tokens, watched)


def _row(what: str, seconds: float, memory: int | None, isa: str, threads: int) -> dict[str, Any]:
    return {
        "what": what,
        "tokens_per_second": NEW_TOKENS / seconds,
        "ms_per_token": 1000 * seconds / NEW_TOKENS,
        "memory_bytes": memory,
        "isa": isa,
        "threads": threads,
    }
