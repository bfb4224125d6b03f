"""What keys and values as int8 cost and save beside float32, on SmolLM2 in one run; write a JSON file.

    python -m scripts.bench.kv_cache --work DIR --smollm2 FILE.gguf --text wiki.test.raw

Speed: milliseconds of one step after contexts of several lengths, the fastest of `--steps`, since whatever else runs
only adds; milliseconds a token of prompts of several lengths. The model is that of +-1 weights which the other
benchmarks time (untrained: speed depends neither on signs nor on what the cache has, which is filled with random
numbers). The types take turns, so a slow minute meets both.

Quality: the real weights of the file, of which one linear is made ternary since a packed folder has a 1-bit layer; the
rest is bfloat16. The same text is read with either cache, and over its last `--scored` tokens the two distributions
are compared: KL(float32 || int8) in nats a token, its 99th percentile, perplexity of both, share of equal likeliest
tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.convert import convert
from bitnet_train.model.settings import Selection
from bitnet_train.packed import export_packed
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.runtime.native.model import NativeModel
from scripts import RESULTS
from scripts.bench.machine_facts import describe_run
from scripts.llama_cpp.models import Subject, make_artefact

TYPES = ("float32", "int8")
_BLOCK = 64  # tokens of a forward whose logits are all wanted: 64 rows of 49,152 numbers
_ONE_LAYER = "model.layers.0.self_attn.k_proj"


def real_artefact(gguf: Path, folder: Path) -> Path:
    """Pack the real weights, one small linear of them ternary, unless they lie there already."""
    if not (folder / "manifest.json").is_file():
        loaded = load_pretrained(str(gguf))
        how = WeightScheme("ternary", "group", 64)
        convert(loaded.model, selection=Selection(include=(_ONE_LAYER,)), weight=how)
        export_packed(loaded.model.eval(), loaded.tokenizer, folder, {}, embedding="int8", head="int8")
    return folder


def quality(model: NativeModel, token_ids: list[int], scored: int) -> dict[str, float]:
    """Read a text with both types and compare what they say of its last tokens."""
    sequences = [model.core.new_sequence(model.max_tokens, kind) for kind in TYPES]
    first = len(token_ids) - scored - 1
    for sequence in sequences:
        model.core.forward([sequence], [np.asarray(token_ids[:first], np.int32)], False)
    divergence: list[np.ndarray] = []
    losses: list[list[np.ndarray]] = [[], []]
    agree = 0
    for start in range(first, len(token_ids) - 1, _BLOCK):
        ids = np.asarray(token_ids[start : min(start + _BLOCK, len(token_ids) - 1)], np.int32)
        logs = [_log_softmax(model.core.forward([sequence], [ids], True)) for sequence in sequences]
        nexts = token_ids[start + 1 : start + 1 + len(ids)]
        for each, log in zip(losses, logs, strict=True):
            each.append(-log[np.arange(len(ids)), nexts])
        divergence.append((np.exp(logs[0]) * (logs[0] - logs[1])).sum(-1))
        agree += int((logs[0].argmax(-1) == logs[1].argmax(-1)).sum())
    kl = np.concatenate(divergence)
    perplexity = [math.exp(float(np.concatenate(each).mean())) for each in losses]
    return {
        "tokens_scored": len(kl),
        "kl_nats": float(f"{kl.mean():.3g}"),
        "kl_p99_nats": float(f"{np.quantile(kl, 0.99):.3g}"),
        "perplexity_float32": round(perplexity[0], 4),
        "perplexity_int8": round(perplexity[1], 4),
        "top1_agreement": round(agree / len(kl), 4),
    }


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def filled(model: NativeModel, kind: str, length: int) -> Any:
    """Return a sequence that holds random keys and values of `length` tokens."""
    sequence, shape = model.core.new_sequence(model.max_tokens, kind), model.architecture.sizes
    size, dice = (shape.layers, shape.kv_heads, length, shape.head_dim), np.random.default_rng(0)
    if kind == "float32":
        sequence.load(*(dice.standard_normal(size, np.float32) for _ in range(2)))
    else:
        codes = [dice.integers(-127, 128, size, np.int8) for _ in range(2)]
        sequence.load(*codes, *(np.full(size[:3], 0.02, np.float32) for _ in range(2)))
    return sequence


def step_milliseconds(model: NativeModel, lengths: list[int], steps: int) -> dict[str, Any]:
    """Return the milliseconds of a step by type and length, and the bytes of keys and values."""
    times: dict[str, dict[str, float]] = {kind: {} for kind in TYPES}
    sizes: dict[str, int] = {}
    token = [np.asarray([7], np.int32)]
    for length in lengths:
        sequences = {kind: filled(model, kind, length) for kind in TYPES}
        taken: dict[str, list[float]] = {kind: [] for kind in TYPES}
        for _ in range(steps):
            for kind, sequence in sequences.items():
                start = time.perf_counter()
                model.core.forward([sequence], token, False)
                taken[kind].append(time.perf_counter() - start)
                sequence.truncate(length)
        for kind in TYPES:
            times[kind][str(length)] = round(1000 * min(taken[kind]), 2)
            sizes[kind] = sequences[kind].bytes
    growth = {kind: round(each[str(lengths[-1])] / each[str(lengths[0])], 2) for kind, each in times.items()}
    return {"step_ms": times, "longest_beside_shortest": growth, "cache_bytes_longest": sizes}


def prefill(model: NativeModel, lengths: list[int]) -> dict[str, dict[str, float]]:
    """Return the milliseconds a token in which prompts are read, the faster of two readings, by type and length."""
    taken: dict[str, dict[str, float]] = {kind: {} for kind in TYPES}
    for length in lengths:
        ids = np.random.default_rng(1).integers(0, 255, length).astype(np.int32)
        for kind in TYPES * 2:
            sequence = model.core.new_sequence(model.max_tokens, kind)
            start = time.perf_counter()
            model.core.forward([sequence], [ids], False)
            each = round(1000 * (time.perf_counter() - start) / length, 3)
            taken[kind][str(length)] = min(each, taken[kind].get(str(length), each))
    return taken


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Time steps, and the reading of a prompt, by the number of threads."""
    binary = make_artefact(Subject("smollm2", "int8", options.smollm2), options.work / "smollm2-int8")
    speeds = {}
    for threads in options.threads:
        model = NativeModel.load(binary, num_threads=threads, verify=False)
        speeds[str(threads)] = step_milliseconds(model, options.lengths, options.steps)
        speeds[str(threads)]["prefill_ms_per_token"] = prefill(model, options.prefill)
    return speeds


def qualities(options: argparse.Namespace) -> dict[str, Any]:
    """Compare what both types say, by context."""
    real = NativeModel.load(
        real_artefact(options.smollm2, options.work / "smollm2-real"), num_threads=options.threads[-1], verify=False
    )
    token_ids = real.tokens.encode(options.text.read_text(encoding="utf-8")[: 8 * max(options.contexts)])
    return {str(context): quality(real, token_ids[:context], options.scored) for context in options.contexts}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the models, kept between runs (0.7 GB)")
    parser.add_argument("--smollm2", type=Path, required=True, help="a GGUF of SmolLM2-135M")
    parser.add_argument("--text", type=Path, required=True, help="the text that is read")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_kv_cache.json")
    parser.add_argument("--threads", type=int, nargs="*", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--lengths", type=int, nargs="*", default=[128, 2048, 8000])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--prefill", type=int, nargs="*", default=[128, 4096, 8000], help="tokens of prompts")
    parser.add_argument("--contexts", type=int, nargs="*", default=[2048, 8000], help="tokens read, ascending")
    parser.add_argument("--note", default="", help="what else the reader has to know of this run")
    parser.add_argument("--scored", type=int, default=512)
    return parser.parse_args()


def main() -> None:
    """Measure and write the file."""
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"facts": describe_run(options)}
    for name, measure in (("threads", speed), ("quality", qualities)):
        result[name] = measure(options)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
