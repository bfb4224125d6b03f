"""What was read, as lines for people, from what `BitDataModule.describe` says."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from bitnet_train.train.data.facts import DataFacts
from bitnet_train.train.data.packing import Layout
from bitnet_train.train.data.tokenise import Counts

_MOST_NAMES = 8
_MUCH_PADDING = 0.1
_SPLITS = {"train": "Training on", "validation": "Held out"}


def print_data(console: Console, facts: DataFacts) -> None:
    """Print `data_lines`; a name in brackets is no markup."""
    for line in data_lines(facts):
        console.print(line, soft_wrap=True, markup=False)


def data_lines(facts: DataFacts) -> list[str]:
    """Return lines on the files of each split, those left out, the rows, their padding, and what is not read."""
    lines = [f"{verb}: {_some(facts.files[split])}." for split, verb in _SPLITS.items() if facts.files.get(split)]
    left_out = [f"{_some(names)} ({reason})" for reason, names in facts.files.items() if reason not in _SPLITS]
    if left_out:
        lines.append(f"Left out: {'; '.join(left_out)}.")
    lines.append(_rows(facts.train))
    if facts.mix is not None:
        parts = [f"{part.path} {part.share:.0%} ({part.rows:,} rows)" for part in facts.mix]
        lines.append(f"Mix of the rows read: {_some(parts)}.")
    if facts.layout is not None:
        lines += _layout(facts.layout, facts.context_tokens)
    if isinstance(facts.unused_fields, dict) and facts.unused_fields:
        lines.append(f"Fields not read: {_some([*map(_counted, facts.unused_fields.items())])}.")
    return lines + [f"Of the data, {times:,} {words}." for words, times in facts.left_out.items()]


def _counted(field: tuple[str, int]) -> str:
    name, rows = field
    return f"{name} ({rows:,} rows)"


def _rows(train: Counts) -> str:
    share = train.trained_tokens / max(1, train.tokens)
    return (
        f"Rows: {train.rows:,} with {train.tokens:,} tokens, {share:.0%} of them trained on; "
        f"{train.padding_share:.0%} of the rows is padding."
    )


def _layout(layout: Layout, row_tokens: int) -> list[str]:
    """Return what became of padding: a line where documents share rows, or where there is much and it stays."""
    if layout.rows < layout.documents:
        return [
            f"Packed: {layout.documents:,} documents into {layout.rows:,} rows of {row_tokens:,} tokens, none sees "
            f"another; {layout.padding_share:.0%} is padding."
        ]
    return [f"Not packed: {layout.why_not}."] if layout.padding_share > _MUCH_PADDING else []


def _some(names: Sequence[str]) -> str:
    """Return the first names, and how many follow."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")
