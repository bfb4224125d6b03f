"""The table that `bitnet-train bench` prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from bitnet_train.bench.row import Row

_CAPTION = "Memory: the most that loading and running added to the process; in brackets the whole process."


def render_rows(rows: Sequence[Row], title: str) -> Table:
    """Return the rows as a table for the terminal, with a column for each context that was timed."""
    contexts = list(dict.fromkeys(length for row in rows for length in row.context_ms))
    table = Table(title=title, caption=_CAPTION, pad_edge=False)
    for name in ("runtime", "isa"):
        table.add_column(name, no_wrap=True)
    after = (f"ms after\n{length}" for length in contexts)
    for name in ("threads", "prefill\ntok/s", "decode\ntok/s", *after, "memory\nMB", "load\ns"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.runtime,
            row.isa,
            str(row.num_threads),
            _rate(row.prefill_tokens_per_s),
            _rate(row.decode_tokens_per_s),
            *(f"{row.context_ms[length]:.2f}" if length in row.context_ms else "" for length in contexts),
            _memory(row),
            "" if row.load_s is None else f"{row.load_s:.2f}",
        )
    return table


def _rate(tokens_per_s: float) -> str:
    return f"{tokens_per_s:,.0f}" if tokens_per_s >= 100 else f"{tokens_per_s:.1f}"


def _memory(row: Row) -> str:
    parts = [_megabytes(row.memory.peak), f"({_megabytes(row.memory.process_peak)})"]
    return " ".join(part for part in parts if part not in ("", "()"))


def _megabytes(num_bytes: int | None) -> str:
    return "" if num_bytes is None else f"{num_bytes / 1e6:,.0f}"
