"""In how much memory is a model reconstructed that is larger than memory? A synthetic Llama in bfloat16 shards.

    python -m scripts.bench.reconstruct --work /big/disk [--billions 3] [--cores 0 1] [--out FILE]

The model is built one layer at a time. Then `bitnet-train reconstruct` reads it, with few steps a block, since memory
does not depend on their number, and `bitnet-train export` packs the result. Memory of its own (`RssAnon`) is watched
from outside. `float32_mb` is what the weights alone would take where a model is loaded to be trained.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import torch

from scripts import RESULTS
from scripts.bench.machine_facts import describe_run
from scripts.bench.synthetic_llama import SHAPES, folder_bytes, llama_config, write_llama
from scripts.bench.watched import run_watched


def main() -> None:
    """Build, reconstruct, pack, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a disk with 20 GB of room for 3 billion weights")
    parser.add_argument("--billions", type=float, choices=sorted(SHAPES), default=3.0)
    parser.add_argument("--steps", type=int, default=2, help="steps a block")
    parser.add_argument("--rows", type=int, default=4, help="rows of text")
    parser.add_argument("--context", type=int, default=256, help="tokens a row")
    parser.add_argument("--cores", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_reconstruct.json")
    parser.add_argument("--keep", action="store_true", help="leave the folders there")
    chosen = parser.parse_args()
    work = chosen.work / "bench_reconstruct"
    shutil.rmtree(work, ignore_errors=True)
    _, weights = write_llama(work / "model", llama_config(chosen.billions, torch.bfloat16))
    run_dir = work / "run"
    commands = {
        "reconstruct": [
            "reconstruct",
            "smollm2_binary_full",
            f"model.source={work / 'model'}",
            f"run.dir={run_dir}",
            f"blockwise.steps={chosen.steps}",
            f"blockwise.rows={chosen.rows}",
            "blockwise.batch_rows=2",
            "init=plain",
            f"data.context_tokens={chosen.context}",
            f"data.max_train_rows={chosen.rows}",
            f"trainer.num_threads={len(chosen.cores)}",
        ],
        "export": ["export", str(run_dir), f"trainer.num_threads={len(chosen.cores)}"],
    }
    rows = []
    for name, words in commands.items():
        started = time.perf_counter()
        _, most = run_watched([sys.executable, "-m", "bitnet_train", *words, "--quiet"], chosen.cores)
        rows.append({"verb": name, "seconds": time.perf_counter() - started, "memory_mb": most / 1e6})
        print(json.dumps(rows[-1]), flush=True)
    result = {
        "run": describe_run(chosen),
        "weights": weights,
        "source_mb": folder_bytes(work / "model") / 1e6,
        "float32_mb": 4 * weights / 1e6,
        "rows": rows,
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    if not chosen.keep:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
