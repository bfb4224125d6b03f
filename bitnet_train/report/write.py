"""Write a report beside the facts that it shows."""

from __future__ import annotations

from pathlib import Path

from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.report.html import render_html
from bitnet_train.report.markdown import render_markdown
from bitnet_train.report.overview import document
from bitnet_train.whole import write_whole


def write_report(facts: EvaluateFacts, subject: str, folder: Path) -> dict[str, str]:
    """Write evaluation.md and evaluation.html on `subject`, the name of what was evaluated; return their paths.

    Raises DiskError where the folder cannot be written.
    """
    made = document(facts, subject)
    paths = {"markdown": folder / "evaluation.md", "html": folder / "evaluation.html"}
    write_whole(paths["markdown"], render_markdown(made))
    write_whole(paths["html"], render_html(made))
    return {name: str(path) for name, path in paths.items()}
