"""How fast, and in how much memory, does a model larger than memory go out? One core, one synthetic Llama.

    python scripts/bench_export.py --work /big/disk [--billions 3] [--formats gguf plain] [--out FILE]

The merged folder of a training run is built from random shards, one tensor at a time, and exported by a process pinned
to one core: packed first, then each format from the packed folder. Its parent watches how much memory of its own
(`RssAnon`) it holds; pages of mapped files do not count, the system drops them when it needs the room. Speed is in
megabytes of the float32 weights that were read, and in million weights, a second of the wall clock.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from llama_cpp_models import byte_tokenizer
from machine_facts import describe_run
from safetensors.torch import save_file
from transformers import LlamaConfig

from bitnet_train.exporters.table import EXPORTERS
from bitnet_train.model.converted import RECORD_FILE, ConversionRecord
from bitnet_train.quant.scheme import WeightScheme

SHAPES = {  # billions of weights -> hidden, ff, layers
    1.0: (2048, 5632, 24),
    3.0: (3072, 8192, 30),
}
VOCAB = 32000
ROLES = {
    "self_attn.q_proj": ("hidden", "hidden"),
    "self_attn.k_proj": ("kv", "hidden"),
    "self_attn.v_proj": ("kv", "hidden"),
    "self_attn.o_proj": ("hidden", "hidden"),
    "mlp.gate_proj": ("ff", "hidden"),
    "mlp.up_proj": ("ff", "hidden"),
    "mlp.down_proj": ("hidden", "ff"),
}
NORMS = ("input_layernorm", "post_attention_layernorm")
WATCH_S = 0.02

EXPORT = """
import sys, time, torch
torch.set_num_threads(1)
from bitnet_train.exporters import export_packed
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.table import export_as
from bitnet_train.model.converted import map_converted
name, source, out = sys.argv[1:]
started = time.perf_counter()
if name == "packed":
    model, tokenizer, _ = map_converted(source)
    export_packed(model, tokenizer, out)
else:
    export_as(name, source, out, ExportOptions())
print(time.perf_counter() - started)
"""


def build_merged(folder: Path, config: LlamaConfig) -> int:
    """Write the merged folder of a model with random latents, a shard a layer; return how many weights are 1-bit."""
    folder.mkdir(parents=True)
    size = {"hidden": config.hidden_size, "ff": config.intermediate_size}
    size["kv"] = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
    torch.manual_seed(0)
    places: dict[str, str] = {}
    names: list[str] = []

    def shard(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(tensors, name))

    count = 0
    for index in range(config.num_hidden_layers):
        prefix = f"model.layers.{index}"
        tensors = {f"{prefix}.{norm}.weight": torch.ones(config.hidden_size) for norm in NORMS}
        for role, (rows, inputs) in ROLES.items():
            names.append(f"{prefix}.{role}")
            tensors[f"{names[-1]}.weight"] = torch.randn(size[rows], size[inputs]) * 0.02
            count += size[rows] * size[inputs]
        shard(f"layer-{index:03}.safetensors", tensors)
    ends = {
        f"{name}.weight": torch.randn(VOCAB, config.hidden_size).bfloat16().float()
        for name in ("model.embed_tokens", "lm_head")
    }
    shard("ends.safetensors", {**ends, "model.norm.weight": torch.ones(config.hidden_size)})
    index_file = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_file))
    config.save_pretrained(folder)
    record = ConversionRecord(tuple(names), WeightScheme(granularity="group", group_size=128))
    (folder / RECORD_FILE).write_text(json.dumps(record.to_dict()))
    byte_tokenizer(VOCAB).save_pretrained(folder)
    return count


def measure(name: str, source: Path, out: Path, core: int) -> dict[str, float]:
    """Export in a process on one core; return its seconds and the most memory of its own that it was seen to hold."""
    command = [sys.executable, "-c", EXPORT, name, str(source), str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {core})
    )
    most = 0
    while process.poll() is None:
        most = max(most, own_memory(process.pid))
        time.sleep(WATCH_S)
    assert process.stdout is not None
    printed = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"exporting as {name} failed")
    return {"seconds": float(printed.split()[-1]), "memory_mb": most / 1e6}


def own_memory(process_id: int) -> int:
    """Return RssAnon of a process in bytes, 0 once it is gone."""
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split() for line in lines if line.startswith("RssAnon:")]
    return int(found[0][1]) * 1024 if found else 0


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    """Build, export, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder on a disk with room: 14 GB for 3 billion weights"
    )
    parser.add_argument("--billions", type=float, choices=sorted(SHAPES), default=3.0)
    parser.add_argument("--formats", nargs="*", default=["gguf"], choices=list(EXPORTERS))
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "bench_export.json")
    parser.add_argument("--keep", action="store_true", help="leave the folders there")
    chosen = parser.parse_args()
    hidden, ff, layers = SHAPES[chosen.billions]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=ff,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 128,
        num_key_value_heads=8,
        vocab_size=VOCAB,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
    )
    work = chosen.work / "bench_export"
    shutil.rmtree(work, ignore_errors=True)
    weights = build_merged(work / "merged", config)
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
