"""What `train --dry-run` says that training takes, beside what the system says that it took: three sizes of model.

    python -m scripts.bench.memory [--sizes tiny small smollm2] [--out FILE]

    tiny       the bundled model, many rows at a time: activations are most of it
    small      a Llama of some 25 million weights that is made here, a vocabulary of 16,384
    smollm2    SmolLM2-135M of the environment variable BITNET_TEST_SMOLLM2, every latent trained: weights are most

Every latent trains, in bfloat16 or float32 as `--precision` says. Each measurement is a process of its own that imports
all, estimates as `--dry-run` does, trains on a few short rows, notes what it holds, calls `train` for a few steps and
asks for the most that it ever held (VmHWM). Both are printed and kept with their ratio, which is to be within 15 %.

The teacher multiplies in floats: to settle whether int8 would do (`teacher.products=auto`), whole logits of a batch are
compared before the first step, which the estimate leaves out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from bitnet_train.config import Config
from bitnet_train.config.compose import compose
from bitnet_train.importers.outline import outline
from bitnet_train.model.bit_lora import trainable_report
from bitnet_train.run import assembly
from bitnet_train.run.machine import settle_machine
from bitnet_train.run.memory import tell_memory
from bitnet_train.runtime.memory import peak_resident_bytes, reset_peak, resident_bytes
from bitnet_train.verbs.train import train
from scripts import RESULTS, module_command
from scripts.bench.machine_facts import describe_run
from scripts.llama_cpp.models import byte_tokenizer

WITHIN = 0.15
STEPS, DOCUMENTS = 2, 40
SHAPES = {"tiny": (32, 256), "small": (8, 256), "smollm2": (2, 256)}  # rows of a micro-batch and their tokens
SMALL_VOCABULARY = 16384


def source(size: str, folder: Path) -> str:
    """Return `model.source` of a size, made in `folder` where it is made."""
    if size == "tiny":
        return "tiny"
    if size == "smollm2":
        found = os.environ.get("BITNET_TEST_SMOLLM2")
        if not found:
            raise SystemExit("`smollm2` needs BITNET_TEST_SMOLLM2, the path of a GGUF of SmolLM2-135M.")
        return found
    write_small(folder)
    return str(folder)


def write_small(folder: Path) -> None:
    """Write a Llama with random weights, 24.9 million, and a tokenizer of bytes."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=SMALL_VOCABULARY,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer(SMALL_VOCABULARY).save_pretrained(folder)


def words(size: str, model: str, chosen: argparse.Namespace, folder: Path) -> list[str]:
    """Return the settings of a size, as on the command line."""
    rows, tokens = SHAPES[size]
    settings = {
        "model.source": model,
        "adapter": "none",
        "optimizer": "adamw_full",
        "data.context_tokens": tokens,
        "data.max_documents": DOCUMENTS,
        "trainer.batch_rows": rows,
        "trainer.micro_rows": rows,
        "trainer.max_steps": STEPS,
        "trainer.precision": chosen.precision,
        "trainer.products": chosen.products,
        "teacher.products": "float",
        "trainer.num_threads": chosen.threads,
        "trainer.validate_every_steps": 0,
        "trainer.samples": 0,
        "logger": "none",
        "run.dir": folder / "run",
    }
    return [f"{name}={value}" for name, value in settings.items()]


def measure(given: list[str]) -> dict[str, Any]:
    """Estimate and train in this process; return both, the second as the most held less what was held before."""
    import datasets  # noqa: F401  what training imports on its way is no part of it

    config = compose(None, given).config
    told = estimate(config)
    warm_up()
    before = resident_bytes()
    reset_peak()
    train(config)
    after = peak_resident_bytes()
    if before is None or after is None:
        raise SystemExit("This system does not say what a process holds (VmHWM of /proc/self/status).")
    return {**told, "measured": after - before}


def warm_up() -> None:
    """Train on a few short rows, so that all is imported, and what libraries take for themselves is there already."""
    with tempfile.TemporaryDirectory() as folder:
        place = [f"run.dir={folder}/run", "logger=none", "trainer.num_threads=1", "teacher.products=float"]
        train(compose("quickstart", ["model.source=tiny", "debug=tiny", *place]).config)


def estimate(config: Config) -> dict[str, Any]:
    """Return what `train --dry-run` says of memory, from the same outline, and with what arithmetic."""
    console = Console(file=sys.stderr)
    config, _ = settle_machine(config, None, console)
    seen = outline(config.model.source)
    assert seen is not None, "all three have one"
    student = assembly.prepare_student(config, seen)
    told = tell_memory(config, assembly.training_module(config, student, seen), console)
    trainable, total = trainable_report(student.model)
    machine = {"precision": config.trainer.precision, "products": config.trainer.products}
    return {"parameters": total, "trainable_parameters": trainable, **machine, "estimate": told}


def row(size: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure one size, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        given = words(size, source(size, Path(name) / "model"), chosen, Path(name))
        command = [*module_command("scripts.bench.memory"), "--worker", *given]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    rows, tokens = SHAPES[size]
    ratio = found["estimate"]["most"] / found["measured"]
    return {"size": size, "micro_rows": rows, "row_tokens": tokens, **found, "ratio": ratio}


def main() -> int:
    """Measure and report; with `--worker`, be one of the measured processes. 1 where a ratio is beyond `WITHIN`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "auto"))
    parser.add_argument("--products", default="integer", choices=("float", "integer"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_memory.json")
    chosen = parser.parse_args()
    if chosen.worker:
        warnings.simplefilter("ignore")
        print("\n" + json.dumps(measure(chosen.worker)))
        return 0
    for size in chosen.sizes:
        found = row(size, chosen)
        print({name: value for name, value in found.items() if name != "estimate"}, flush=True)
        print({name: value and round(value / 1e6) for name, value in found["estimate"].items()}, flush=True)
        keep(chosen, found)
    rows = json.loads(chosen.out.read_text(encoding="utf-8"))["rows"]
    return int(any(abs(found["ratio"] - 1) > WITHIN for found in rows))


def keep(chosen: argparse.Namespace, found: dict[str, Any]) -> None:
    """Write a row, with the run that measured it, in place of the one of its size and arithmetic."""
    rows = json.loads(chosen.out.read_text(encoding="utf-8"))["rows"] if chosen.out.is_file() else []
    rows = [other for other in rows if _kind(other) != _kind(found)] + [{**found, "run": describe_run(chosen)}]
    rows.sort(key=lambda each: (list(SHAPES).index(each["size"]), each["precision"], each["products"]))
    chosen.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


def _kind(row: dict[str, Any]) -> tuple[str, ...]:
    return row["size"], row["precision"], row["products"]


if __name__ == "__main__":
    sys.exit(main())
