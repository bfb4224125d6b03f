from __future__ import annotations

import io

from rich.console import Console

from bitnet_train.bench.row import Memory, Row
from bitnet_train.bench.table import render_rows

MB = 1_000_000
ROWS = (
    Row("native", "reference", 2, (10_326.4, 9_000.0, 11_000.0), (2_695.74,), 0.06, Memory(6 * MB, 7 * MB, 45 * MB)),
    Row("modules", "avx512", 1, (902.3,), (35.25,), 0.91, Memory(28 * MB, 1029 * MB, 1381 * MB), {"1024": 3.14159}),
)


def shown(rows: tuple[Row, ...], width: int = 80) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width).print(render_rows(rows, "speeds"))
    return text.getvalue().splitlines()


def test_every_figure_is_whole_in_a_terminal_of_80_columns() -> None:
    lines = shown(ROWS)
    assert max(map(len, lines)) <= 80
    native, modules = (next(line for line in lines if f"│{name} " in line) for name in ("native", "modules"))
    assert [cell.strip() for cell in native.strip("│").split("│")] == [
        *("native", "reference", "2", "10,326", "2,696", "", "7 (45)", "0.06")
    ]
    cells = [cell.strip() for cell in modules.strip("│").split("│")]
    assert cells[:6] == ["modules", "avx512", "1", "902", "35.2", "3.14"]
    assert "…" not in "".join(lines)
