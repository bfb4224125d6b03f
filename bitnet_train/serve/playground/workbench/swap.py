"""What a choice of layers costs and saves: KL divergence, perplexity and agreement on a text, and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitnet_train.serve.playground.workbench.measured import Measured
from bitnet_train.serve.playground.workbench.opened import Opened
from bitnet_train.serve.playground.workbench.task import Task


def swap(opened: Opened, measured: Measured, task: Task, choice: Mapping[str, str], text: str | None) -> dict[str, Any]:
    """Measure the model with these layers swapped beside its float self."""
    schemes = opened.schemes(choice)
    task.progress(0, len(schemes) + 1, "the float model")
    reference = measured.reference(task, text)
    with measured.swapped(task, schemes, tell=True), task.interruptible():
        after = reference.measure(opened.model)
    task.progress(len(schemes) + 1, len(schemes) + 1, "done")
    return {
        "tokens": reference.tokens,
        "layers": len(schemes),
        "before": {"perplexity": reference.perplexity, "bytes": opened.bytes_with({})},
        "after": {
            "perplexity": after.perplexity,
            "kl": after.kl,
            "top1": after.top1,
            "bytes": opened.bytes_with(schemes),
        },
    }
