"""Time eight streams at once against one over HTTP, `serve` beside llama.cpp's server, in one run; write a JSON file.

    python -m scripts.bench.serve --work DIR --smollm2 FILE.gguf [--llama-cpp "$(scripts/build_llama_cpp --server)"]

The model is SmolLM2-135M of +-1 weights, its tied table at int8, untrained: speed does not depend on the signs. For
llama.cpp the same weights in each type of `--types` that takes its widths, its tables in q8_0. A contender is a server
that runs alone; one and eight clients, each a stream with a prompt of its own, ask it for `--new-tokens` tokens each.
The rate is all tokens by the seconds from the first request to the last answer, reading of prompts included. Contenders
are timed in turn, round by round; figures are medians. The client is the same light program for all, on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from scripts import RESULTS
from scripts.bench.machine_facts import describe_run
from scripts.llama_cpp.models import Subject, make_artefact, quantize, write_gguf

STARTS = ("def read", "import os\n", "class Tree:", "for line in", "while True:", "x = {", "# Sorts", "try:\n    ")
START_SECONDS = 120


@dataclass(frozen=True)
class Contender:
    """A server that can be started: a name, and its command for a port."""

    label: str
    command: tuple[str, ...]

    def on(self, port: int) -> list[str]:
        """Return the command with its port."""
        return [word.replace("PORT", str(port)) for word in self.command]


def contenders(options: argparse.Namespace) -> tuple[list[Contender], dict[str, str]]:
    """Return ours and llama.cpp's, and why a type of llama.cpp's is not among them."""
    subject = Subject("smollm2", "int8", options.smollm2)
    folder = make_artefact(subject, options.work / subject.label)
    threads, tokens = str(options.threads), options.context_tokens
    ours = (
        sys.executable,
        "-m",
        "bitnet_train",
        "serve",
        str(folder),
        "serve.port=PORT",
        f"generate.threads={threads}",
    )
    found, refused = [Contender("ours", (*ours, f"serve.most_tokens={tokens}"))], {}
    if options.llama_cpp is None:
        return found, refused
    source = write_gguf(folder, options.work / f"{subject.label}.gguf", options.smollm2)
    for kind in options.types:
        path = source.with_name(f"{subject.label}.{kind}.q8_0.gguf")
        flags = ["--token-embedding-type", "q8_0", "--output-tensor-type", "q8_0"]
        problem = quantize(options.llama_cpp / "llama-quantize", source, path, kind, flags)
        if problem:
            refused[kind] = problem
            continue
        most = max(options.streams)
        sizes = ("--threads", threads, "--parallel", str(most), "--ctx-size", str(most * tokens))
        program = (str(options.llama_cpp / "llama-server"), "--model", str(path), "--port", "PORT", "--no-webui")
        found.append(Contender(f"llama.cpp {kind}", (*program, *sizes)))
    return found, refused


@contextmanager
def running(contender: Contender) -> Iterator[int]:
    """Yield the port of a server that answers; it has ended after the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(contender.on(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, port)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"`{' '.join(map(str, process.args))}` did not answer: {process.poll()}")  # type: ignore[arg-type]


async def stream(port: int, number: int, new_tokens: int) -> int:
    """Read one stream to its end; return its tokens."""
    asked = {"prompt": f"{STARTS[number % len(STARTS)]} {number}", "max_tokens": new_tokens, "temperature": 0}
    how = {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    body = json.dumps(asked | how).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    last = b""
    while piece := await reader.read(1 << 16):
        last = (last + piece)[-4096:]
    writer.close()
    counts = re.findall(rb'"completion_tokens":\s*(\d+)', last)
    assert counts, last
    return int(counts[-1])


async def together(port: int, streams: int, new_tokens: int) -> float:
    """Return the tokens per second of several streams."""
    start = time.perf_counter()
    tokens = await asyncio.gather(*(stream(port, number, new_tokens) for number in range(streams)))
    return sum(tokens) / (time.perf_counter() - start)


def race(found: Sequence[Contender], options: argparse.Namespace) -> dict[str, dict[int, list[float]]]:
    """Return all rates, by contender and number of streams."""
    rates: dict[str, dict[int, list[float]]] = {each.label: {n: [] for n in options.streams} for each in found}
    for number in range(options.rounds):
        for contender in found:
            with running(contender) as port:
                asyncio.run(together(port, max(options.streams), 16))  # the model is loaded, caches are warm
                for streams in options.streams * options.repeats:
                    rates[contender.label][streams].append(asyncio.run(together(port, streams, options.new_tokens)))
            told = {n: f"{median(each):.0f}" for n, each in rates[contender.label].items()}
            print(f"round {number + 1} of {options.rounds}: {contender.label}: tokens/s by streams {told}", flush=True)
    return rates


def report(rates: dict[str, dict[int, list[float]]], streams: Sequence[int]) -> dict[str, Any]:
    """Return medians, what many streams gain over one, and ours beside the fastest other one."""
    few, many = min(streams), max(streams)
    rows = {
        label: {
            "tokens_per_second": {str(n): round(median(each), 1) for n, each in by_streams.items()},
            "gain": round(median(by_streams[many]) / median(by_streams[few]), 2),
        }
        for label, by_streams in rates.items()
    }
    others = {label: row["tokens_per_second"][str(many)] for label, row in rows.items() if label != "ours"}
    best = max(others, key=lambda label: others[label], default=None)
    beside = None if best is None else round(rows["ours"]["tokens_per_second"][str(many)] / others[best], 2)
    return {"rows": rows, "fastest_other": best, "ours_beside_it": beside}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the models, kept between runs (2 GB)")
    parser.add_argument("--smollm2", type=Path, required=True, help="a GGUF of SmolLM2-135M")
    parser.add_argument("--llama-cpp", type=Path, help="folder of llama-server and llama-quantize; ours alone without")
    parser.add_argument("--types", nargs="*", default=["Q1_0", "Q2_0", "TQ1_0", "TQ2_0", "Q4_0", "Q8_0"])
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_serve.json")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--new-tokens", type=int, default=192)
    parser.add_argument("--context-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs in a round")
    return parser.parse_args()


def main() -> None:
    """Time every contender and write the file."""
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    found, refused = contenders(options)
    result = report(race(found, options), options.streams)
    options.out.write_text(json.dumps({"facts": describe_run(options), "refused": refused, **result}, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
