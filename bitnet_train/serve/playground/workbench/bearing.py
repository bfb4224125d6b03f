"""How well each layer bears one bit: families, blocks, then each layer, alone quantised, beside the float model."""

from __future__ import annotations

from typing import Any

from bitnet_train.sensitivity.parts import Part, parts_of
from bitnet_train.sensitivity.reference import Fidelity
from bitnet_train.serve.playground.workbench.measured import Measured
from bitnet_train.serve.playground.workbench.opened import Opened
from bitnet_train.serve.playground.workbench.task import Task


def bearing(opened: Opened, measured: Measured, task: Task) -> dict[str, Any]:
    """Measure every part; the cost of a layer is its KL divergence in nats a token, and its share of all layers'."""
    names = [name for name in opened.layers if opened.swappable(name)]
    schemes = opened.schemes(dict.fromkeys(names, "binary"))
    task.progress(0, 1, "the float model")
    reference = measured.reference(task, None)
    parts = _parts(names)
    found: dict[Part, Fidelity] = {}
    for index, part in enumerate(parts):
        task.progress(index, len(parts), part.pattern)
        found[part] = measured.measure(task, reference, {name: schemes[name] for name in part.names})
        event = {"layer": part.names[0]} if part.kind == "layer" else {"part": part.pattern, "kind": part.kind}
        task.say("cost", kl=found[part].kl, top1=found[part].top1, **event)
    task.progress(len(parts), len(parts), "done")
    costs = {part.names[0]: found[part].kl for part in parts if part.kind == "layer"}
    total = sum(costs.values()) or 1.0
    return {
        "tokens": reference.tokens,
        "perplexity": reference.perplexity,
        "parts": [_row(part, fidelity) for part, fidelity in found.items() if part.kind != "layer"],
        "layers": [{"layer": name, "kl": kl, "share": kl / total} for name, kl in costs.items()],
    }


def _parts(names: list[str]) -> list[Part]:
    """Families and blocks, then every layer: also one that is a family of its own, such as the head."""
    return [*parts_of(names), *(Part("layer", name, (name,)) for name in names)]


def _row(part: Part, fidelity: Fidelity) -> dict[str, Any]:
    return {
        "kind": part.kind,
        "pattern": part.pattern,
        "layers": list(part.names),
        "kl": fidelity.kl,
        "top1": fidelity.top1,
        "perplexity": fidelity.perplexity,
    }
