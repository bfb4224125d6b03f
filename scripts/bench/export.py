"""How fast, and in how much memory, does a model larger than memory go out? One core, one synthetic Llama.

    python -m scripts.bench.export --work /big/disk [--billions 3] [--formats gguf plain] [--out FILE]

The merged folder of a training run is built from random shards, one tensor at a time, and exported by a process pinned
to one core: packed first, then each format from the packed folder. Its parent watches how much memory of its own
(`RssAnon`) it holds; pages of mapped files do not count, the system drops them when it needs the room. Speed is in
megabytes of the float32 weights that were read, and in million weights, a second of the wall clock.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig

from bitnet_train.exporters.registry import EXPORTERS
from bitnet_train.model.converted import RECORD_FILE, ConversionRecord
from bitnet_train.quant.scheme import WeightScheme
from scripts import RESULTS
from scripts.bench.machine_facts import describe_run
from scripts.bench.synthetic_llama import SHAPES, folder_bytes, llama_config, write_llama
from scripts.bench.watched import run_watched

EXPORT = """
import sys, time, torch
torch.set_num_threads(1)
from bitnet_train.packed import export_packed
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import export_as
from bitnet_train.model.converted import load_converted
name, source, out = sys.argv[1:]
started = time.perf_counter()
if name == "packed":
    model, tokenizer, _ = load_converted(source, mapped=True)
    export_packed(model, tokenizer, out)
else:
    export_as(name, source, out, ExportOptions())
print(time.perf_counter() - started)
"""


def build_merged(folder: Path, config: LlamaConfig) -> int:
    """Write the merged folder of a model with random latents, a shard a layer; return how many weights are 1-bit."""
    names, count = write_llama(folder, config)
    record = ConversionRecord(tuple(names), WeightScheme(granularity="group", group_size=128))
    (folder / RECORD_FILE).write_text(json.dumps(record.to_dict()))
    return count


def measure(name: str, source: Path, out: Path, core: int) -> dict[str, float]:
    """Export in a process on one core; return its seconds and the most memory of its own that it was seen to hold."""
    printed, most = run_watched([sys.executable, "-c", EXPORT, name, str(source), str(out)], [core])
    return {"seconds": float(printed.split()[-1]), "memory_mb": most / 1e6}


def main() -> None:
    """Build, export, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder on a disk with room: 14 GB for 3 billion weights"
    )
    parser.add_argument("--billions", type=float, choices=sorted(SHAPES), default=3.0)
    parser.add_argument("--formats", nargs="*", default=["gguf"], choices=list(EXPORTERS))
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_export.json")
    parser.add_argument("--keep", action="store_true", help="leave the folders there")
    chosen = parser.parse_args()
    work = chosen.work / "bench_export"
    shutil.rmtree(work, ignore_errors=True)
    weights = build_merged(work / "merged", llama_config(chosen.billions, torch.float32))
    rows = []
    for name in ("packed", *chosen.formats):
        source = work / "merged" if name == "packed" else work / "packed"
        row = {"format": name, **measure(name, source, work / name, chosen.core)}
        row["input_mb"], row["output_mb"] = folder_bytes(source) / 1e6, folder_bytes(work / name) / 1e6
        row["million_weights_per_s"] = weights / 1e6 / row["seconds"]
        row["fp32_mb_per_s"] = 4 * row["million_weights_per_s"]
        rows.append(row)
        print({key: value if isinstance(value, str) else round(value, 1) for key, value in row.items()}, flush=True)
    result = {"run": describe_run(chosen), "weights": weights, "cores": 1, "rows": rows}
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    if not chosen.keep:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
