"""Time the packed linear operator against torch float32 and int8 matrix products, and write a JSON result file.

    python scripts/bench_kernels.py --out kernels.json [--rounds 7]

One thread, weights warm. The contenders of a shape are timed in turn, round by round, and each figure is the median of
its rounds: seconds per call, and GOP/s = 2 * T * N * K / time. Packing of the activations is included.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bitnet_train.formats.planes import pack_planes
from bitnet_train.kernels import ops

SHAPES = [(1, 576, 576), (1, 1536, 576), (1, 2048, 2048), (128, 1536, 576), (128, 2048, 2048)]
MIN_ROUND_S = 0.02


def contenders(num_tokens: int, num_outputs: int, num_inputs: int) -> dict[str, Callable[[], object]]:
    """Return the calls to time: every kernel and scheme with one scale per row, and two of torch."""
    x_codes = torch.randint(-128, 128, (num_tokens, num_inputs), dtype=torch.int8)
    x_scale, w_scale = torch.ones(num_tokens, 1), torch.ones(num_outputs, 1)
    codes = {
        "binary": 2 * torch.randint(0, 2, (num_outputs, num_inputs), dtype=torch.int8) - 1,
        "ternary": torch.randint(-1, 2, (num_outputs, num_inputs), dtype=torch.int8),
    }
    x_float, w_float, w_int8 = x_codes.float(), codes["binary"].float(), codes["binary"].T.contiguous()
    calls: dict[str, Callable[[], object]] = {
        "torch float32": lambda: torch.nn.functional.linear(x_float, w_float),
        "torch int8": lambda: torch._int_mm(x_codes, w_int8),
    }
    for weight, activation in [(weight, activation) for weight in codes for activation in ops.ACTIVATIONS]:
        words = ops.repack(pack_planes(codes[weight], weight), num_inputs, num_inputs, weight)
        x = x_codes if activation == "int8" else torch.where(x_codes >= 0, 1, -1).to(torch.int8)
        arguments = (x, x_scale, words, w_scale, None, num_inputs, num_inputs, weight, activation)
        for isa in ops.available_isas()[:-1]:
            calls[f"{isa} {weight}.{activation}"] = forced(isa, arguments)
    return calls


def forced(isa: str, arguments: tuple) -> Callable[[], object]:
    """Return a call of `packed_linear` on one instruction set."""

    def call() -> object:
        with ops.forced_isa(isa):
            return ops.packed_linear(*arguments)

    return call


def seconds_per_call(call: Callable[[], object]) -> float:
    """Time one round, repeated for at least MIN_ROUND_S."""
    repeats, elapsed, start = 0, 0.0, time.perf_counter()
    while elapsed < MIN_ROUND_S:
        call()
        repeats += 1
        elapsed = time.perf_counter() - start
    return elapsed / repeats


def main() -> None:
    """Run every shape and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="result file, JSON")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each contender")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for shape in SHAPES:
        calls = contenders(*shape)
        for call in calls.values():
            call()
        rounds = [{name: seconds_per_call(call) for name, call in calls.items()} for _ in range(options.rounds)]
        for name in calls:
            seconds = statistics.median(timed[name] for timed in rounds)
            gops = 2 * shape[0] * shape[1] * shape[2] / seconds / 1e9
            rows.append({"T": shape[0], "N": shape[1], "K": shape[2], "kernel": name, "seconds": seconds, "gops": gops})
            print(
                f"T={shape[0]:<4} N={shape[1]:<5} K={shape[2]:<5} {name:<26} {seconds * 1e6:10.1f} us {gops:8.1f} GOP/s"
            )
    facts = {"machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
    options.out.write_text(json.dumps({"facts": facts, "num_threads": 1, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
