"""A step of distillation beside the loop that one would write in plain PyTorch: how fast, and where the time goes.

    python -m scripts.bench.distil_step [--quick] [--threads 2] [--as avx2] [--out FILE]

    plain      two `LlamaForCausalLM`, `F.kl_div` over all logits, clipping, torch's fused AdamW: no quantiser at all
    float      `BitLightningModule` over +-1 weights in groups of 64, as recipes train them; all products in floats
    forward    the same, the forward of 1-bit linears in integers
    integer    the same, their gradients in integers too, and the teacher in int8 but for its head

The models have the shape of SmolLM2-135M and random weights; everything trains, the embedding too. A step is one row:
the teacher's pass, the student's, the loss, backward, clipping, AdamW, in the faster of fp32 and bf16 on this machine.
Every measurement is a process of its own, kinds take turns; times are medians of the wall clock, memory is the largest
resident size less that after the imports. Parts are of one more step under torch's profiler: self time of operators, by
the range they run in; `head` is the student's products with the vocabulary, the teacher's are its own.

How far a step is from what the machine could do is said as a share of its float limit: the multiplications of all
linears, three products of the student's and one of the teacher's, at the speed of one large float product of the same
precision and threads. What multiplies in integers may pass it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.data import DataLoader
from transformers import LlamaForCausalLM

from bitnet_train.kernels.torch_threads import on_torch_threads
from bitnet_train.model import quantized_linear
from bitnet_train.model.bit_lora import attach
from bitnet_train.model.convert import convert
from bitnet_train.model.rounded_table import round_floats
from bitnet_train.model.settings import AdapterConfig
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.surrogate import Clipped
from bitnet_train.train.loop.freed_memory import keep_freed_memory
from bitnet_train.train.loop.lean_parts import keep_less
from bitnet_train.train.loop.machine import PRECISIONS, arithmetic
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.settings import OptimConfig
from bitnet_train.train.losses.head_loss import TeacherStates
from bitnet_train.train.losses.int8_teacher import in_int8
from bitnet_train.train.losses.settings import LossConfig
from scripts import RESULTS, module_command
from scripts.bench.machine_facts import describe_run
from scripts.bench.train_step import Stopwatch, peak_bytes, shape

KINDS = ("plain", "float", "forward", "integer")
WARM_UP_STEPS = 1
VOCABULARY = shape(1).vocab_size
LR, CLIP_NORM, BETAS = 1e-4, 1.0, (0.9, 0.95)
NARROW = {
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "BITNET_TRAIN_ISA": "avx2",
    }
}
RANGES = {
    "forward_product": "1-bit products",
    "input_gradient": "1-bit products",
    "weight_gradient": "1-bit products",
    "pack_latent": "packing",
    "_effective": "quantisers",
    "quantize_tokens": "quantisers",
    "dequantize_tokens": "quantisers",
    "weight_gradients": "quantisers",
}
PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm")
OPERATORS = {
    **dict.fromkeys(PRODUCTS, "float products"),
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": "attention",
}
PARTS = (
    "teacher",
    "1-bit products",
    "packing",
    "quantisers",
    "head",
    "float products",
    "attention",
    "loss",
    "optimiser",
)
LIMIT_SIZE, LIMIT_REPEATS = 2048, 5


def models(layers: int) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    """Return (student, teacher), both dense and float32."""
    torch.manual_seed(0)
    student, teacher = LlamaForCausalLM(shape(layers)), LlamaForCausalLM(shape(layers))
    return student.train(), teacher.eval().requires_grad_(False)


def rows(chosen: argparse.Namespace) -> list[Tensor]:
    """Return random tokens int64 [1, L], the same for every kind."""
    generator = torch.Generator().manual_seed(1)
    steps = chosen.steps + WARM_UP_STEPS + 1
    return list(torch.randint(0, VOCABULARY, (steps, 1, chosen.tokens), generator=generator))


def plain(chosen: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Distil as a page of PyTorch does."""
    student, teacher = models(chosen.layers)
    optimizer = torch.optim.AdamW(student.parameters(), lr=LR, betas=BETAS, weight_decay=0.0, fused=True)

    def step(ids: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            with torch.no_grad(), record_function("teacher"):
                told = teacher(input_ids=ids).logits
            logits = student(input_ids=ids).logits
            with record_function("loss"):
                q, p = F.log_softmax(logits[:, :-1].float(), -1), F.log_softmax(told[:, :-1].float(), -1)
                loss = F.kl_div(q, p, reduction="sum", log_target=True) / (ids.shape[1] - 1)
        loss.backward()
        with record_function("optimiser"):
            nn.utils.clip_grad_norm_(student.parameters(), CLIP_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    *timed, last = rows(chosen)
    watch = Stopwatch()
    for ids in timed:
        start = time.perf_counter()
        watch.losses.append(step(ids))
        watch.wall_s.append(time.perf_counter() - start)
    return {"wall_s": watch.wall_s, "losses": watch.losses, "peak": peak_bytes(), "parts": parts_of(lambda: step(last))}


class Profiled(Callback):
    """The last step under the profiler."""

    def __init__(self, last: int) -> None:
        self.last, self.peak = last, 0
        self.profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True)

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        """Start with the last step; what the profiler keeps is no memory of the step's."""
        if index == self.last:
            self.peak = peak_bytes()
            self.profiler.__enter__()

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """Stop after it."""
        if index == self.last:
            self.profiler.__exit__(None, None, None)


def ours(chosen: argparse.Namespace, precision: str, products: Any) -> dict[str, Any]:
    """Distil through the quantiser, as a run does."""
    keep_freed_memory()
    student, teacher = models(chosen.layers)
    convert(student, weight=WeightScheme("binary", "group", 64, learnable_scale=True), surrogate=Clipped(3.0))
    round_floats(student)
    keep_less(student)
    module = BitLightningModule(
        attach(student, AdapterConfig(kind="none", train_embeddings=True)),
        teacher,
        max_steps=chosen.steps + WARM_UP_STEPS + 1,
        micro_rows=1,
        loss=LossConfig(kl=1.0, ce=0.0),
        optim=OptimConfig(lr=LR, clip_norm=CLIP_NORM, betas=BETAS),
        rounded=True,
        products=products,
    )
    if products == "integer":  # the head stays in floats, as `teacher.products=auto` finds for SmolLM2
        first = rows(chosen)[0]
        module.teach_with(in_int8(teacher, {"input_ids": first, "labels": first}, with_head=False))
    del teacher
    watch, profiled = Stopwatch(), Profiled(chosen.steps + WARM_UP_STEPS)
    trainer = Trainer(
        accelerator="cpu",
        precision=PRECISIONS[precision],
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch, profiled],
    )
    batches = [{"input_ids": ids, "labels": ids.clone()} for ids in rows(chosen)]
    batches = [batch | {"attention_mask": torch.ones_like(batch["input_ids"])} for batch in batches]
    with ranges(module), on_torch_threads():
        trainer.fit(module, DataLoader(batches, batch_size=None))
    timed = {"wall_s": watch.wall_s[:-1], "losses": watch.losses[:-1]}
    return timed | {"peak": profiled.peak, "parts": shares(profiled.profiler)}


@contextmanager
def ranges(module: Any) -> Iterator[None]:
    """Name what runs, for the profiler."""
    kept = {name: getattr(quantized_linear, name) for name in RANGES}
    for name, part in RANGES.items():
        setattr(quantized_linear, name, named(part, kept[name]))
    teachers_head = TeacherStates.at
    TeacherStates.at = named("teacher", teachers_head)
    for name, part in {"_told": "teacher", "_clip": "optimiser", "_optimizer_step": "optimiser"}.items():
        setattr(module, name, named(part, getattr(module, name)))
    try:
        yield
    finally:
        TeacherStates.at = teachers_head
        for name, function in kept.items():
            setattr(quantized_linear, name, function)


def named(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, run in a range."""

    def within(*args: Any, **options: Any) -> Any:
        with record_function(part):
            return function(*args, **options)

    return within


def parts_of(call: Callable[[], Any]) -> dict[str, float]:
    """Profile a call."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        call()
    return shares(profiler)


def shares(profiler: Any) -> dict[str, float]:
    """Return the share of each part in the self time of all operators of a profiled step."""
    found: Counter[str] = Counter()
    for event in profiler.events():
        found[part_of(event)] += event.self_cpu_time_total
    total = sum(found.values())
    return {part: found[part] / total for part in (*PARTS, "rest")}


def part_of(event: Any) -> str:
    """Return the part that an operator belongs to: that of the range around it, else its own."""
    around, at = None, event
    while at is not None:
        if at.name in PARTS:
            around = at.name
        elif around is None and at.name in PRODUCTS and any(VOCABULARY in shape for shape in at.input_shapes):
            around = "head"
        elif around is None and at.name.startswith(("_HeadLoss", "_LogitLoss", "LogSoftmax", "KlDiv")):
            around = "loss"
        elif around is None and at.name.startswith("_FusedAttention"):
            around = "attention"
        at = at.cpu_parent
    return around or OPERATORS.get(event.name, "rest")


def float_limit(precision: str) -> float:
    """Return the multiplications and additions a second of a large float product, the best of several."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(LIMIT_SIZE, LIMIT_SIZE).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(1 + LIMIT_REPEATS):
        start = time.perf_counter()
        left.mm(right)
        seconds.append(time.perf_counter() - start)
    return 2 * LIMIT_SIZE**3 / min(seconds)


def operations(chosen: argparse.Namespace) -> int:
    """Return the multiplications and additions of a step's linears: thrice the student's, once the teacher's."""
    with torch.device("meta"):
        model = LlamaForCausalLM(shape(chosen.layers))
    weights = sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Linear))
    return (3 + 1) * 2 * weights * chosen.tokens


def measure(kind: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train some steps in this process."""
    torch.set_num_threads(chosen.threads)
    precision, before = arithmetic("auto", "cpu").precision, peak_bytes()
    found = plain(chosen, precision) if kind == "plain" else ours(chosen, precision, kind)
    memory_mb, timed = (found.pop("peak") - before) / 1e6, found["wall_s"][WARM_UP_STEPS:]
    return found | {
        "wall_s": timed,
        "precision": precision,
        "memory_mb": memory_mb,
        "float_limit_GOPps": float_limit(precision) / 1e9,
    }


def in_process(kind: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own."""
    sizes = [f"--{name}={getattr(chosen, name)}" for name in ("threads", "layers", "tokens", "steps")]
    command = [*module_command("scripts.bench.distil_step"), "--worker", kind, *sizes]
    environment = os.environ | (NARROW[chosen.narrowed] if chosen.narrowed else {})
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(finished.stdout.splitlines()[-1])


def compare(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every kind in turns; return a row for each, with ratios to `plain`."""
    rounds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(chosen.rounds):
        for kind in KINDS:
            rounds[kind].append(in_process(kind, chosen))
    made = []
    for kind, found in rounds.items():
        wall_s = median(second for one in found for second in one["wall_s"])
        memory_mb = max(one["memory_mb"] for one in found)
        row = {"kind": kind, "precision": found[0]["precision"], "wall_s": wall_s, "memory_mb": memory_mb}
        limit = median(one["float_limit_GOPps"] for one in found)
        row |= {"tokens_per_s": chosen.tokens / wall_s, "losses": found[0]["losses"], "float_limit_GOPps": limit}
        row["of_float_limit"] = operations(chosen) / wall_s / (1e9 * limit)
        made.append(row | {"parts": {part: median(one["parts"][part] for one in found) for part in found[0]["parts"]}})
    for row in made:
        row["speed_ratio"] = row["tokens_per_s"] / made[0]["tokens_per_s"]
        row["memory_ratio"] = row["memory_mb"] / made[0]["memory_mb"]
        print(
            f"{row['kind']:8} {row['tokens_per_s']:6.1f} tokens/s  {row['speed_ratio']:.2f}x  {row['memory_ratio']:.2f}"
        )
    return made


def table(made: list[dict[str, Any]]) -> str:
    """Return seconds by part and kind, in Markdown."""
    lines = ["| part | " + " | ".join(row["kind"] for row in made) + " |", "|---|" + "---|" * len(made)]
    for part in made[0]["parts"]:
        lines.append(f"| {part} | " + " | ".join(f"{row['parts'][part] * row['wall_s']:.2f} s" for row in made) + " |")
    lines.append("| **a step** | " + " | ".join(f"{row['wall_s']:.2f} s" for row in made) + " |")
    lines.append("| of the float limit | " + " | ".join(f"{row['of_float_limit']:.0%}" for row in made) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and report; with `--worker`, be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=3, help="steps of a process, after one to warm up")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind")
    parser.add_argument("--as", dest="narrowed", choices=tuple(NARROW), help="hold the libraries to fewer instructions")
    parser.add_argument("--quick", action="store_true", help="6 layers, one round")
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_distil_step.json")
    chosen = parser.parse_args()
    if chosen.worker:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(chosen.worker, chosen)))
        return
    if chosen.quick:
        chosen.layers, chosen.rounds = 6, 1
    made = compare(chosen)
    print(table(made))
    chosen.out.write_text(json.dumps({"run": describe_run(chosen), "rows": made}, indent=1) + "\n")


if __name__ == "__main__":
    main()
