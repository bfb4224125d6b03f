"""The scan as tables for a terminal: one for each kind of part, the most sensitive first."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.table import Table

from bitnet_train.sensitivity.parts import KINDS
from bitnet_train.sensitivity.reference import Fidelity
from bitnet_train.sensitivity.scan import Result, Scan

_TITLES = {"family": "Families of layers", "block": "Blocks", "layer": "Layers"}
_COLUMNS = ("part", "bits", "KL", "top-1", "perplexity", "ternary\nKL", "\n+MB", "spared\nKL", "float\n+MB")


def sensitivity_tables(scan: Scan) -> list[Table]:
    """Return the tables: nats per token, megabytes of 10^6 bytes."""
    kinds = [kind for kind in KINDS if any(result.part.kind == kind for result in scan.results)]
    return [_table(_TITLES[kind], [result for result in scan.results if result.part.kind == kind]) for kind in kinds]


def describe(fidelity: Fidelity) -> str:
    """Say a measure in a few words."""
    return f"KL {fidelity.kl:.4g} nats, top-1 agreement {fidelity.top1:.1%}, perplexity {fidelity.perplexity:,.4g}"


def _table(title: str, results: list[Result]) -> Table:
    caption = "bits a weight; alone quantised: KL (nats), top-1 agreement, perplexity; alone float: KL"
    table = Table(title=title, caption=caption, box=SIMPLE, pad_edge=False, collapse_padding=True)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "part" else "right", no_wrap=True)
    for result in sorted(results, key=lambda result: -result.only.kl):
        table.add_row(*_cells(result))
    return table


def _cells(result: Result) -> list[str]:
    in_ternary = ["", ""]
    if result.ternary is not None and result.ternary_bytes is not None:
        in_ternary = [f"{result.ternary.kl:.3f}", f"{(result.ternary_bytes - result.planned_bytes) / 1e6:.2f}"]
    return [
        result.part.pattern,
        f"{result.bits_per_weight:.2f}",
        f"{result.only.kl:.3f}",
        f"{result.only.top1:.1%}",
        f"{result.only.perplexity:,.4g}",
        *in_ternary,
        f"{result.spared.kl:.3f}",
        f"{(result.float_bytes - result.planned_bytes) / 1e6:.2f}",
    ]
