"""Time every kernel against torch and against the limits of this machine, and write a JSON result file.

    python -m scripts.bench.kernels --out scripts/results/bench_kernels.json [--rounds 9] [--cpu 1]

Each figure is the median over rounds of seconds per call, in which the contenders of a shape take turns; GOP/s is
2 * T * N * K / time. Quantising and preparing the activations is part of the call. "Warm" weights stay in the caches;
"cold" ones are a weight too large for them. Beside the kernels: torch float32, bfloat16 and int8 products of the same
shape, the read bandwidth of each level of memory in the same run, and the clock (a chain of dependent additions).

Run it alone and pinned: `--cpu` pins the process and one thread; two threads are timed unpinned.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from bitnet_train.formats.planes import pack_planes
from bitnet_train.kernels import ops
from bitnet_train.kernels.isa import core
from scripts.bench.machine_facts import describe_run
from scripts.bench.machine_limits import limits

WARM = [(4096, 4096), (576, 1536), (1536, 576), (2048, 2048)]  # N, K; TARGETS and SmolLM2
COLD = (65536, 8192)  # 64 MiB of bits
TOKENS = (1, 8, 128, 512)
MIN_ROUND_S = 0.02


@dataclass(frozen=True)
class Case:
    """One contender on one shape: `run` returns seconds per call."""

    tokens: int
    outputs: int
    inputs: int
    kernel: str
    isa: str
    weights: str
    activation: str
    group: int
    threads: int
    bytes: int
    run: Callable[[], float]

    def row(self, seconds: float) -> dict[str, object]:
        """Return the line of the result file."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "run"}
        operations = 2 * self.tokens * self.outputs * self.inputs
        return {**fields, "seconds": seconds, "gops": operations / seconds / 1e9}


def weight_codes(weights: str, outputs: int, inputs: int) -> torch.Tensor:
    """Return random codes int8 [N, K]."""
    if weights == "ternary":
        return torch.randint(-1, 2, (outputs, inputs), dtype=torch.int8)
    return 2 * torch.randint(0, 2, (outputs, inputs), dtype=torch.int8) - 1


def ours(
    tokens: list[int], shape: tuple[int, int], weights: str, activation: str, group: int, threads: int
) -> Iterator[Case]:
    """Yield every kernel that accepts this weight, at each number of tokens."""
    outputs, inputs = shape
    planes = pack_planes(weight_codes(weights, outputs, inputs), weights)
    scale = torch.rand(outputs, inputs // group).half().float() + 0.5
    for name, isa, runs in core.kernels():
        if not runs or isa in ("popcnt", "portable"):
            continue
        with ops.forced_isa(isa, name):
            stream, packed = ops.pack(planes, scale.half().float(), inputs, group, weights, activation)
        if packed.kernel != f"{name}.{isa}":
            continue  # it does not accept this weight
        for count in tokens:
            x, out = torch.randn(count, inputs).numpy(), torch.empty(count, outputs).numpy()
            arguments = (packed.kernel, packed.spec, stream.numpy(), x, out, threads)
            repeats = max(1, int(MIN_ROUND_S / max(1e-7, core.time_linear(*arguments, 1))))

            def run(arguments: tuple = arguments, repeats: int = repeats) -> float:
                return core.time_linear(*arguments, repeats)

            yield Case(count, *shape, name, isa, weights, activation, group, threads, stream.numel(), run)


def torchs(tokens: list[int], shape: tuple[int, int], threads: int) -> Iterator[Case]:
    """Yield torch's products of the same shapes."""
    outputs, inputs = shape
    w_int8 = weight_codes("binary", outputs, inputs)
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        weight = w_int8.T.contiguous() if dtype == torch.int8 else w_int8.to(dtype)
        for count in tokens:
            x = torch.randint(-127, 128, (count, inputs)).to(dtype)

            def call(x: torch.Tensor = x, w: torch.Tensor = weight) -> object:
                return torch._int_mm(x, w) if x.dtype == torch.int8 else torch.nn.functional.linear(x, w)

            name = str(dtype).removeprefix("torch.")

            def run(call: Callable[[], object] = call) -> float:
                return seconds_per_call(call, threads)

            yield Case(count, *shape, f"torch {name}", "torch", name, name, inputs, threads, weight.nbytes, run)


def seconds_per_call(call: Callable[[], object], threads: int) -> float:
    """Time one round of a Python call, repeated for at least MIN_ROUND_S."""
    torch.set_num_threads(threads)
    call()
    repeats, elapsed, start = 0, 0.0, time.perf_counter()
    while elapsed < MIN_ROUND_S:
        call()
        repeats += 1
        elapsed = time.perf_counter() - start
    torch.set_num_threads(1)
    return elapsed / repeats


def cases() -> Iterator[list[Case]]:
    """Yield groups of contenders that are timed in turns: one shape, one number of threads."""
    tokens = list(TOKENS)
    for threads in (1, 2):
        for shape in WARM:
            inputs = shape[1]
            contenders: list[Case] = list(torchs(tokens, shape, threads))
            for weights in ("binary", "ternary"):
                for activation in ops.ACTIVATIONS:
                    contenders += ours(tokens, shape, weights, activation, inputs, threads)
            if inputs % 128 == 0:
                contenders += ours(tokens, shape, "binary", "int8", 128, threads)
            contenders += ours(tokens, shape, "binary", "int8", 64, threads)
            yield contenders
        for weights, group in (("binary", COLD[1]), ("binary", 128), ("ternary", COLD[1])):
            yield list(ours([1], COLD, weights, "int8", group, threads))


def timed(contenders: list[Case], rounds: int) -> list[dict[str, object]]:
    """Time the contenders in turns and return their rows."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for case, times in zip(contenders, seconds, strict=True):
            times.append(case.run())
    return [case.row(statistics.median(times)) for case, times in zip(contenders, seconds, strict=True)]


def line(row: dict[str, object]) -> str:
    """Return one row for people."""
    return (
        f"T={row['tokens']:<4} N={row['outputs']:<6} K={row['inputs']:<5} threads={row['threads']} "
        f"{row['isa']:<8} {row['kernel']:<16} {row['weights']}.{row['activation']:<9} group {row['group']:<5} "
        f"{float(str(row['seconds'])) * 1e6:10.1f} us {float(str(row['gops'])):8.1f} GOP/s"
    )


def main() -> None:
    """Run everything and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of each contender")
    parser.add_argument("--cpu", type=int, default=None, help="pin one-thread rounds to this core")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    everywhere = os.sched_getaffinity(0)
    rows: list[dict[str, object]] = []
    roofs: dict[str, object] = {}
    for contenders in cases():
        threads = contenders[0].threads
        if options.cpu is not None:
            os.sched_setaffinity(0, {options.cpu} if threads == 1 else everywhere)
        if str(threads) not in roofs:
            roofs[str(threads)] = limits(threads)
        rows += timed(contenders, options.rounds)
        for row in rows[-len(contenders) :]:
            print(line(row), flush=True)
    result = {"facts": describe_run(options), "limits": roofs, "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
