"""One trial of an ablation in a process of its own: train as `bitnet-train train` does, measure the trained student.

    python -m scripts.ablate.trial TASK.json ROW.json

The student is measured as it was trained, in evaluation mode: that computes on the integers the packed model computes
on. Perplexity, KL divergence and top-1 agreement are against the full-precision model on the same rows, in-domain (the
held-out split) and, where a text is named, out-of-domain. `tokens`, `seconds` and `cpu_seconds` are of the whole
training stage, preparation of the student included, tokenising not; `fit_seconds` of its steps alone.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from bitnet_train.config import Config, changed
from bitnet_train.config.compose import compose
from bitnet_train.evaluate.comparison import Comparison, compare
from bitnet_train.evaluate.windows import windows
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.bit_linear import bit_layers, on_kernels
from bitnet_train.run import assembly
from bitnet_train.run.directory import made_by
from bitnet_train.run.facts import TrainFacts
from bitnet_train.verbs.train import train
from scripts.ablate.task import Task
from scripts.bench.machine_facts import commit, cpu_name


def run_trial(task: Task) -> dict[str, Any]:
    """Train, measure, and return the figures of one row."""
    config = changed(compose(task.recipe, [*task.words, f"run.dir={task.run_dir}"]).config, {"quiet": True})
    assembly.prepare_process(config)
    config, directory = assembly.open_run(config)
    original = load_pretrained(config.model.source)
    data = assembly.data_module(config, original, directory)
    data.setup()
    rows = assembly.held_out_rows(config, data)
    training = _train(config)
    student = assembly.trained_student(config, original, directory).student.model
    measured: dict[str, Any] = {"out_of_domain": None}
    with on_kernels():
        measured["in_domain"] = _figures(compare(student, original.model, rows))
        if task.text is not None:
            measured["out_of_domain"] = _on_text(task, student, original.model, original.tokenizer)
    flipped = flipped_signs(student, original.model)
    return {**training, **measured, "flipped_signs": flipped, "made_by": _made_by(config)}


def flipped_signs(student: nn.Module, original: nn.Module) -> float:
    """Return the share of latents whose sign is not that of the original's weight; an original 0 counts as positive."""
    flipped = total = 0
    for name, layer in bit_layers(student).items():
        was = original.get_parameter(f"{name}.weight")
        flipped += int(((layer.weight >= 0) != (was >= 0)).sum())
        total += was.numel()
    return flipped / total


def _train(config: Config) -> dict[str, Any]:
    """Run the training stage and return its steps, tokens, times and peak memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    trained = train(config)
    assert isinstance(trained, TrainFacts), "a trial is no dry run"
    return {
        "steps": trained.result.steps,
        "tokens": trained.before.tokens + trained.result.tokens,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "fit_seconds": trained.result.seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss": trained.result.metrics["loss"],
    }


def _on_text(task: Task, student: nn.Module, teacher: nn.Module, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    path = Path(task.text or "")
    most = max(1, task.max_text_tokens // task.window_tokens)
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = windows(text, tokenizer, task.window_tokens, max_windows=most, overlap=False)
    return {"text": path.name, "window_tokens": task.window_tokens, **_figures(compare(student, teacher, rows))}


def _figures(compared: Comparison) -> dict[str, Any]:
    assert compared.teacher is not None
    return {
        "perplexity": compared.student.perplexity,
        "nats": compared.student.nats,
        "full_precision": compared.teacher.perplexity,
        "ratio": compared.perplexity_ratio,
        "kl": compared.kl,
        "top1_agreement": compared.top1_agreement,
        "tokens": compared.student.tokens,
    }


def _made_by(config: Config) -> dict[str, Any]:
    when = time.strftime("%Y-%m-%d %H:%M")
    return {**made_by(), "cpu": cpu_name(), "threads": config.trainer.num_threads, "commit": commit(), "date": when}


def main() -> int:
    """Read a task, write its row."""
    row = run_trial(Task.read(Path(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(row), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
