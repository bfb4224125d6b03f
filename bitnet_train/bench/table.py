"""The table that `bitnet-train bench` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from bitnet_train.bench.row import Row

_CAPTION = "Memory: the most that loading and running added to the process; in brackets the whole process."


def render_rows(rows: Sequence[Row], title: str) -> Table:
    """Return the rows as a table for the terminal, with a column for each context that was timed."""
    contexts = list(dict.fromkeys(length for row in rows for length in row.context_ms))
    table = Table(title=title, caption=_CAPTION)
    for name in ("runtime", "isa", "threads", "prefill tok/s", "decode tok/s", "ms/token"):
        table.add_column(name, justify="left" if name in ("runtime", "isa") else "right")
    for length in contexts:
        table.add_column(f"ms after {length}", justify="right")
    table.add_column("memory MB", justify="right")
    table.add_column("load s", justify="right")
    for row in rows:
        table.add_row(
            row.runtime,
            row.isa,
            str(row.num_threads),
            f"{row.prefill_tokens_per_s:,.1f}",
            f"{row.decode_tokens_per_s:,.1f}",
            f"{1000 / row.decode_tokens_per_s:.2f}",
            *(f"{row.context_ms[length]:.2f}" if length in row.context_ms else "" for length in contexts),
            _memory(row),
            "" if row.load_s is None else f"{row.load_s:.2f}",
        )
    return table


def _memory(row: Row) -> str:
    parts = [_megabytes(row.memory.peak), f"({_megabytes(row.memory.process_peak)})"]
    return " ".join(part for part in parts if part not in ("", "()"))


def _megabytes(num_bytes: int | None) -> str:
    return "" if num_bytes is None else f"{num_bytes / 1e6:,.0f}"
