"""What was read, as lines for people, from the facts of `BitDataModule.describe`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

_MOST_NAMES = 8
_MUCH_PADDING = 0.1
_SPLITS = {"train": "Training on", "validation": "Held out"}


def print_data(console: Console, facts: dict[str, Any]) -> None:
    """Print `data_lines`; a name in brackets is no markup."""
    for line in data_lines(facts):
        console.print(line, soft_wrap=True, markup=False)


def data_lines(facts: dict[str, Any]) -> list[str]:
    """Return lines on the files of each split, those left out, the rows, their padding, and what is not read."""
    files = facts.get("files", {})
    lines = []
    for split, verb in _SPLITS.items():
        if files.get(split):
            lines.append(f"{verb}: {_some(files[split])}.")
    left_out = [f"{_some(names)} ({reason})" for reason, names in files.items() if reason not in _SPLITS]
    if left_out:
        lines.append(f"Left out: {'; '.join(left_out)}.")
    if "train" in facts:
        lines.append(_rows(facts["train"]))
    if "mix" in facts:
        parts = [f"{part['path']} {part['share']:.0%} ({part['rows']:,} rows)" for part in facts["mix"]]
        lines.append(f"Mix of the rows read: {_some(parts)}.")
    if "layout" in facts:
        lines += _layout(facts["layout"], facts["context_tokens"])
    if facts.get("unused_fields"):
        lines.append(f"Fields not read: {_some([*map(_counted, facts['unused_fields'].items())])}.")
    lines += [f"Of the data, {times:,} {words}." for words, times in facts.get("left_out", {}).items()]
    return lines


def _counted(field: tuple[str, int]) -> str:
    name, rows = field
    return f"{name} ({rows:,} rows)"


def _rows(train: dict[str, Any]) -> str:
    share = train["trained_tokens"] / max(1, train["tokens"])
    return (
        f"Rows: {train['rows']:,} with {train['tokens']:,} tokens, {share:.0%} of them trained on; "
        f"{train['padding_share']:.0%} of the rows is padding."
    )


def _layout(layout: dict[str, Any], row_tokens: int) -> list[str]:
    """Return what became of padding: a line where documents share rows, or where there is much and it stays."""
    documents, rows, padding = layout["documents"], layout["rows"], layout["padding_share"]
    if rows < documents:
        return [
            f"Packed: {documents:,} documents into {rows:,} rows of {row_tokens:,} tokens, none sees another; "
            f"{padding:.0%} is padding."
        ]
    return [f"Not packed: {layout['why_not']}."] if padding > _MUCH_PADDING else []


def _some(names: Sequence[str]) -> str:
    """Return the first names, and how many follow."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")
