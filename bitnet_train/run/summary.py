"""The short table at the end of a run, made from the facts of its stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bitnet_train.config import Config
from bitnet_train.run.folder_size import megabytes, warning
from bitnet_train.train.loop.budget import spoken
from bitnet_train.train.loop.fit import FitResult

Facts = dict[str, Any]


def summarise(config: Config, facts: dict[str, Facts]) -> Facts:
    """Return the figures that a result file keeps: quality, size, speed, verdict, and where things are."""
    after = facts["evaluate"]
    before = facts["convert"]["full_precision"] or _held_out(after)["teacher"]
    return {
        "recipe": config.recipe,
        "source": config.model.source,
        "weight": _weight(facts["convert"]["record"]),
        "activation": config.activation.name,
        "adapter": config.adapter.kind,
        "perplexity": {
            "full_precision": before["perplexity"],
            "swapped": facts["convert"]["swapped"]["perplexity"],
            "trained": after["perplexity"],
            "trained_nats": after["nats"],
            "ratio": after["perplexity"] / before["perplexity"],
            "tokens": after["tokens"],
        },
        "texts": texts(after),
        "size": facts["export"]["sizes"],
        "train": _train(facts["train"]),
        "decode_tokens_per_s": after["decode"]["tokens_per_s"],
        "validation": "passed" if facts["validate"]["passed"] else "FAILED",
        "passed": facts["validate"]["passed"],
        "run_dir": config.run.dir,
    }


def _held_out(evaluated: Facts) -> Facts:
    """Return the text that both models of a run are first compared on."""
    return evaluated["texts"][0]


def texts(evaluated: Facts) -> list[Facts]:
    """Return, of the facts of `bitnet-train evaluate`, the figures of each text that a result file keeps."""
    return [
        {
            "name": text["name"],
            "held_out": text["held_out"],
            "window_tokens": text["window_tokens"],
            "tokens": text["student"]["tokens"],
            "full_precision": text["teacher"]["perplexity"] if text["teacher"] else None,
            "trained": text["student"]["perplexity"],
            "ratio": text["perplexity_ratio"],
            "kl": text["kl"],
            "top1_agreement": text["top1_agreement"],
        }
        for text in evaluated["texts"]
    ]


def after_training(result: FitResult, run_dir: Path) -> str:
    """Return one line for people: what was trained, what it came to on held-out text, and where it lies."""
    metrics = result.metrics
    figures = {"perplexity": metrics.get("val_perplexity"), "KL": metrics.get("val_kl")}
    held_out = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if value is not None)
    length = f"{result.steps:,} steps, {result.tokens:,} tokens in {result.seconds / 60:.1f} minutes"
    measured = f" Held out: {held_out}." if held_out else ""
    return f"Trained {length}, loss {metrics['loss']:.4g}.{measured} Run directory: {run_dir}"


def render(compared: Facts) -> Group:
    """Return the closing tables for the terminal."""
    larger = warning(compared["size"])
    notes = [Text(f"warning: {larger}", style="yellow")] if larger else []
    place = Text(f"Everything is in {compared['run_dir']}")
    return Group(_figures(compared), *notes, *_continuations(compared), place)


def _figures(compared: Facts) -> Table:
    scores, size, decode = compared["perplexity"], compared["size"], compared["decode"]
    table = Table(title=f"{compared['recipe']}: {compared['weight']}, activations {compared['activation']}")
    for column in ("", "full precision", "swapped", "trained, packed"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row(
        "held-out perplexity",
        f"{scores['full_precision']:.2f}",
        f"{scores['swapped']:,.1f}",
        f"{scores['trained']:.2f} ({scores['ratio']:.2f}x)",
    )
    for text in compared["texts"]:
        if not text["held_out"]:
            original = "" if text["full_precision"] is None else f"{text['full_precision']:.2f}"
            ratio = "" if text["ratio"] is None else f" ({text['ratio']:.2f}x)"
            table.add_row(f"perplexity of {text['name']}", original, "", f"{text['trained']:.2f}{ratio}")
    packed = size["packed_bytes"] + size["scale_bytes"]
    table.add_row("1-bit layers alone", f"{size['fp16_bytes'] / 1e6:.2f} MB", "", f"{packed / 1e6:.2f} MB")
    table.add_row("whole folder", *_folder(size))
    table.add_row("greedy decoding", _speed(decode["full_precision"]), "", _speed(decode["packed"]))
    table.caption = _cost_and_verdict(compared)
    return table


def _cost_and_verdict(compared: Facts) -> str:
    whole = compared.get("stage_seconds")
    took = f", everything {spoken(sum(whole.values()))}" if whole else ""
    return f"trained on {_cost(compared['train'])}{took}; validation {compared['validation']}"


def _folder(size: Facts) -> tuple[str, str, str]:
    """Return the original's size as it was given, and the folder's; older result files have no original."""
    original = size.get("original_bytes")
    return (megabytes(original) if original else "", "", megabytes(size.get("folder_bytes", size["total_bytes"])))


def _train(facts: Facts) -> Facts:
    """Return what all of training cost, and how much of it came before the first step (`blockwise`, `init`)."""
    before = facts["before"]
    return {
        "steps": facts["steps"],
        "tokens": facts["tokens"] + before["tokens"],
        "seconds": facts["seconds"] + before["seconds"],
        "before": before,
        "tokens_per_s": facts["tokens_per_s"],
    }


def _cost(train: Facts) -> str:
    cost = f"{train['tokens']:,} tokens in {train['seconds']:.0f} s"
    blocks = train["before"]["tokens"]
    return f"{cost}, {blocks:,} of them on blocks" if blocks else cost


def _speed(decode: Facts) -> str:
    """Return tokens per second, and what decoded; results of before there was a choice were made by torch."""
    return f"{decode['tokens_per_s']:.0f} tok/s, {decode.get('engine', 'torch')}"


def _continuations(compared: Facts) -> list[Panel]:
    names = {"full_precision": "full precision", "packed": "1-bit, packed"}
    return [
        Panel(Text(compared["prompt"] + compared["continuations"][key]), title=name, title_align="left")
        for key, name in names.items()
    ]


def _weight(record: Facts) -> str:
    """Say how weights are written, as the record of the conversion has it: a 1-bit source decides for itself."""
    scheme, mixed = record["weight"], len(record.get("mixed", {}))
    grain = scheme["granularity"]
    scale = f"one scale per {scheme['group_size']} inputs" if grain == "group" else f"one scale per {grain}"
    return f"{scheme['name']}, {scale}" + (f"; {mixed} layers otherwise" if mixed else "")
