"""How much does the quantiser cost a training step? The same model, trainer and loss with kinds of linear layer.

    python -m scripts.bench.train_step [--quick] [--threads 1] [--precisions bf16-mixed 32-true] [--out FILE]

    linear     nn.Linear: no quantiser at all
    naive      W + (Q(W) - W).detach() and the same for x, the usual spelling, one scale a row
    ours       BitLinear, one scale a row, identity estimator: the numbers of `naive`
    groups     BitLinear as recipes use it: learnable scales for groups of 64, clipped estimator
    composed   `ours` put together from the reference functions: its losses must be those of `ours`, bit for bit in
               bf16; in fp32 up to rounding, as `ours` may multiply in integers
    returning  `ours`, with freed memory going back to the system as it does by default (see `train.loop.freed_memory`)

The model has the shape of SmolLM2-135M and random weights; a step of `BitLightningModule` is forward, cross-entropy,
backward, clipping and AdamW. Every measurement is a process of its own; kinds take turns, so that what else the machine
does meets all alike. Times are medians of the wall clock and of the process's CPU time (with one thread the latter
hardly depends on other load); memory is the largest resident size less that after the imports.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from bitnet_train.model.bit_linear import BitLinear, bit_layers
from bitnet_train.model.bit_lora import attach
from bitnet_train.model.convert import convert
from bitnet_train.model.settings import AdapterConfig
from bitnet_train.quant.activation import fake_quantize_activation
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.surrogate import Clipped, Identity
from bitnet_train.train.loop.freed_memory import keep_freed_memory
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.settings import OptimConfig
from bitnet_train.train.losses.settings import LossConfig
from scripts import RESULTS, module_command
from scripts.bench.machine_facts import describe_run

KINDS = ("linear", "naive", "ours", "groups", "composed", "returning")
PRECISIONS = ("bf16-mixed", "32-true")
WARM_UP_STEPS = 1
ROUNDING = 1e-4  # of a loss after a few steps: the moved code of an activation now and then


class NaiveBitLinear(nn.Linear):
    """Binary weights by row and int8 activations by the detach trick."""

    def forward(self, input: Tensor) -> Tensor:
        """x [.., K] to [.., N]."""
        w = self.weight
        w_q = torch.where(w >= 0, 1.0, -1.0) * w.abs().mean(dim=1, keepdim=True).half().float()
        s = 127 / input.float().abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
        x_q = ((input * s).round().clamp(-128, 127) / s).to(input.dtype)
        return F.linear(input + (x_q - input).detach(), w + (w_q - w).detach(), self.bias)


class ComposedBitLinear(BitLinear):
    """A training forward put together from the reference functions."""

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """x [.., K] to [.., N]."""
        weight = self.surrogate.weight(self.weight, self.rounded_scale(), self.weight_scheme, self.hardness)
        x = fake_quantize_activation(x, self.activation)
        return F.linear(x, weight if torch.is_autocast_enabled("cpu") else weight.to(x.dtype), self.bias)


class Stopwatch(Callback):
    """Wall and CPU seconds, and the loss, of every step."""

    def __init__(self) -> None:
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Start."""
        self._start = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, trainer: Trainer, module: BitLightningModule, *_: Any) -> None:
        """Stop."""
        self.wall_s.append(time.perf_counter() - self._start[0])
        self.cpu_s.append(time.process_time() - self._start[1])
        self.losses.append(module.metrics["loss"])


def shape(layers: int) -> LlamaConfig:
    """Return the shape of SmolLM2-135M."""
    return LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        tie_word_embeddings=True,
        use_cache=False,
    )


def build(kind: str, layers: int) -> nn.Module:
    """Return a student whose 1-bit (or plain) linears and norms train and whose embedding is frozen."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(shape(layers))
    if kind in ("linear", "naive"):
        model.get_input_embeddings().requires_grad_(False)
        if kind == "naive":
            for module in model.model.modules():
                if isinstance(module, nn.Linear):
                    module.__class__ = NaiveBitLinear
        return model
    by_groups = WeightScheme("binary", "group", 64, learnable_scale=True)
    scheme, surrogate = (by_groups, Clipped(3.0)) if kind == "groups" else (WeightScheme(), Identity())
    convert(model, weight=scheme, surrogate=surrogate)
    if kind == "composed":
        for layer in bit_layers(model).values():
            layer.__class__ = ComposedBitLinear
    return attach(model, AdapterConfig(kind="none"))


def measure(kind: str, precision: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Train some steps in this process; return seconds, losses and memory."""
    torch.set_num_threads(chosen.threads)
    if kind != "returning":
        keep_freed_memory()
    before = peak_bytes()
    module = BitLightningModule(
        build(kind, chosen.layers),
        None,
        max_steps=chosen.steps + WARM_UP_STEPS,
        micro_rows=chosen.rows,
        loss=LossConfig(kl=0.0, ce=1.0),
        optim=OptimConfig(lr=1e-4),
    )
    watch = Stopwatch()
    trainer = Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    )
    trainer.fit(module, DataLoader(batches(chosen), batch_size=None))
    return {
        "wall_s": watch.wall_s[WARM_UP_STEPS:],
        "cpu_s": watch.cpu_s[WARM_UP_STEPS:],
        "losses": watch.losses,
        "memory_mb": (peak_bytes() - before) / 1e6,
    }


def batches(chosen: argparse.Namespace) -> list[dict[str, Tensor]]:
    """Return random tokens, the same for every kind."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 49152, (chosen.steps + WARM_UP_STEPS, chosen.rows, chosen.tokens), generator=generator)
    return [{"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)} for ids in rows]


def peak_bytes() -> int:
    """Return the largest resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_process(kind: str, precision: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own."""
    sizes = [f"--{name}={getattr(chosen, name)}" for name in ("threads", "layers", "rows", "tokens", "steps")]
    command = [*module_command("scripts.bench.train_step"), "--worker", kind, precision, *sizes]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def summarise(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """Return medians over all steps of all rounds, and the most memory."""
    return {
        "wall_s": median(second for one in rounds for second in one["wall_s"]),
        "cpu_s": median(second for one in rounds for second in one["cpu_s"]),
        "memory_mb": max(one["memory_mb"] for one in rounds),
    }


def compare(precision: str, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure every kind in turns; return a row for each, with ratios to `linear`."""
    rounds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _ in range(chosen.rounds):
        for kind in KINDS:
            rounds[kind].append(in_process(kind, precision, chosen))
    for same in ("composed", "returning"):
        is_exact = same == "returning" or precision != "32-true"
        tolerance = 0.0 if is_exact else ROUNDING
        losses = zip(rounds["ours"][0]["losses"], rounds[same][0]["losses"], strict=True)
        assert all(abs(a - b) <= tolerance * abs(a) for a, b in losses), f"{same} computes something else than ours"
    figures = {kind: summarise(found) for kind, found in rounds.items()}
    rows = []
    for kind, row in figures.items():
        ratios = {f"{name}_ratio": row[name] / figures["linear"][name] for name in row}
        rows.append({"kind": kind, "precision": precision, **row, **ratios, "losses": rounds[kind][0]["losses"]})
        print({name: round(v, 3) if isinstance(v, float) else v for name, v in rows[-1].items()}, flush=True)
    return rows


def main() -> None:
    """Measure and report; with `--worker`, be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rows", type=int, default=4, help="rows of a batch")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=2, help="steps of a process, after one to warm up")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind")
    parser.add_argument("--precisions", nargs="*", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--quick", action="store_true", help="6 layers, one round")
    parser.add_argument("--worker", nargs=2, metavar=("KIND", "PRECISION"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_train_step.json")
    chosen = parser.parse_args()
    if chosen.worker:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(*chosen.worker, chosen)))
        return
    if chosen.quick:
        chosen.layers, chosen.rounds = 6, 1
    rows = [row for precision in chosen.precisions for row in compare(precision, chosen)]
    chosen.out.write_text(json.dumps({"run": describe_run(chosen), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
