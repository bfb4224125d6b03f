"""Figures for Prometheus, in its text format: what was asked and written, and what goes on in each worker now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from bitnet_train.runtime.memory import resident_bytes
from bitnet_train.serve.api.models import Models

Sample = tuple[Mapping[str, str], float]


class Counters:
    """What was counted since the server began."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.texts: Counter[tuple[str, str]] = Counter()
        self.prompt_tokens: Counter[str] = Counter()
        self.new_tokens: Counter[str] = Counter()
        self.refused = 0

    def count(self, model: str, done: Mapping[str, Any]) -> None:
        """Count a text that is done."""
        self.texts[model, done["finish"]] += 1
        self.prompt_tokens[model] += done["prompt_tokens"]
        self.new_tokens[model] += done["new_tokens"]


def metrics_text(counters: Counters, models: Models) -> str:
    """Return everything in Prometheus' text format."""
    routes = [({"path": path, "status": str(status)}, n) for (path, status), n in counters.requests.items()]
    texts = [({"model": model, "finish": finish}, n) for (model, finish), n in counters.texts.items()]
    hands = models.loaded.items()
    families = [
        ("requests_total", "counter", "answers by path and status", routes),
        ("texts_total", "counter", "texts that were written, by why they ended", texts),
        ("prompt_tokens_total", "counter", "tokens of prompts", _by_model(counters.prompt_tokens)),
        ("new_tokens_total", "counter", "tokens that were written", _by_model(counters.new_tokens)),
        ("queue_full_total", "counter", "requests that found the queue full", [({}, counters.refused)]),
        ("model_starts_total", "counter", "processes that were started", _by_model(models.num_started)),
        ("texts_held", "gauge", "texts that are written or wait", _by_model({n: h.num_texts for n, h in hands})),
        ("texts_running", "gauge", "texts that are written", _states(hands, "running")),
        (
            "drawn_tokens",
            "gauge",
            "tokens that a process drew, for clients that left too",
            _states(hands, "drawn_tokens"),
        ),
        ("cache_bytes", "gauge", "keys and values of a model's texts", _states(hands, "cache_bytes")),
        ("worker_bytes", "gauge", "memory of a model's process", _by_model(_resident(hands))),
    ]
    return "".join(_family(f"bitnet_train_{name}", *rest) for name, *rest in families)


def _by_model(counts: Mapping[str, float]) -> list[Sample]:
    return [({"model": name}, count) for name, count in counts.items()]


def _states(hands: Iterable[tuple[str, Any]], key: str) -> list[Sample]:
    return [({"model": name}, hand.state.get(key, 0)) for name, hand in hands]


def _resident(hands: Iterable[tuple[str, Any]]) -> dict[str, float]:
    return {name: resident_bytes(hand.pid) or 0 for name, hand in hands}


def _family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    lines += [
        f"{name}{_labels(labels)} {value:g}" if value < 1e6 else f"{name}{_labels(labels)} {value:.0f}"
        for labels, value in samples
    ]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}" if labels else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
