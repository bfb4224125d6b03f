"""The layers of a run: what became of each family, and what telemetry saw inside, as shades and histograms."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from bitnet_train.model.patterns import star_numbers
from bitnet_train.report.document import Block, Grid, Heat, Histograms, Items, Paragraph, Section, Table
from bitnet_train.report.figures import number, percent
from bitnet_train.report.kept import KeptConversion, KeptLayer, KeptLayerFigures, KeptPlan
from bitnet_train.report.run_files import RunFiles

_BLOCK = re.compile(r"\.(\d+)\.")
_OUTSIDE, _ZEROS = "outside", "Zeros"
_MIDDLE = 32  # of the 64 codes of a word: as many +1 as others
Figure = Callable[[KeptLayerFigures], float | None]


def plan_section(run: RunFiles) -> Section | None:
    """The plan of layers, a row a family; without one what `convert` counted."""
    plan = run.get(KeptPlan)
    if plan is not None:
        return Section("Layers", tuple(_plan_blocks(plan)))
    conversion = run.get(KeptConversion)
    if conversion is None:
        return None
    said = f"{conversion.layers:,} layers became 1-bit, {conversion.weights:,} weights. The plan itself was not kept."
    return Section("Layers", (Paragraph(said),))


def _plan_blocks(plan: KeptPlan) -> Iterator[Block]:
    families: dict[tuple[str, str, str, str], list[KeptLayer]] = defaultdict(list)
    for layer in plan.layers:
        shape = f"{layer.num_outputs:,} x {layer.num_inputs:,}"
        families[star_numbers(layer.name), shape, layer.scheme or "float", layer.reason].append(layer)
    converted = [layer for layer in plan.layers if layer.scheme]
    weights, all_weights = sum(layer.weights for layer in converted), sum(layer.weights for layer in plan.layers)
    share = f", {percent(weights / all_weights)} of the weights in linear layers and tables" if all_weights else ""
    yield Paragraph(f"{len(converted)} of {len(plan.layers)} layers are 1-bit: {weights:,} weights{share}.")
    rows = tuple(
        (family, shape, scheme, str(len(layers)), number(sum(layer.weights for layer in layers), 0), reason)
        for (family, shape, scheme, reason), layers in families.items()
    )
    yield Table(("family", "outputs x inputs", "weights are", "layers", "weights", "why"), rows, is_text=True)
    if plan.notes:
        yield Items(plan.notes)


def inside_section(run: RunFiles) -> Section | None:
    """What telemetry saw at the last step that it looked at; None where it was off."""
    if not run.layers:
        return None
    last = max(row.step for row in run.layers)
    rows = list({row.layer: row for row in run.layers if row.step == last}.values())
    said = (
        f"Telemetry (`BITNET_DEBUG=1`) after step {number(last, 0)}, {len(rows)} layers. Codes that no longer flip and "
        "latents that stay near the threshold say that a layer still learns little; a popcount around the middle of a "
        "word says that its signs are balanced."
    )
    maps = tuple(heat for title, note, figure, render in _MAPS for heat in _heat(title, note, figure, render, rows))
    return Section("Inside the layers", (Paragraph(said), Grid(maps), _popcounts(rows)))


def _heat(
    title: str, note: str, figure: Figure, render: Callable[[float], str], rows: Sequence[KeptLayerFigures]
) -> Iterator[Heat]:
    values = {_place(row.layer): figure(row) for row in rows}
    if all(value is None or (value == 0 and title == _ZEROS) for value in values.values()):
        return
    families = tuple(dict.fromkeys(family for _, family in values))
    blocks = tuple(dict.fromkeys(block for block, _ in values))
    yield Heat(
        title,
        note,
        families,
        tuple((block, tuple(values.get((block, family)) for family in families)) for block in blocks),
        render,
    )


def _place(layer: str) -> tuple[str, str]:
    """Return the block of a layer and its family: `3`, `q_proj`."""
    block = _BLOCK.search(layer)
    family = layer.rpartition(".")[2]
    return (block[1] if block else _OUTSIDE), family.removesuffix("_proj")


def _popcounts(rows: Sequence[KeptLayerFigures]) -> Histograms:
    sums: dict[str, list[int]] = {}
    for row in rows:
        family = _place(row.layer)[1]
        held = sums.setdefault(family, [0] * len(row.popcount))
        sums[family] = [own + its for own, its in zip(held, row.popcount, strict=False)]
    counts = tuple((family, tuple(bins)) for family, bins in sums.items() if any(bins))
    note = "words of 64 consecutive weights, by how many of their codes are +1; all blocks of a family together"
    return Histograms("Popcount", note, counts, _MIDDLE)


def _at(values: Sequence[float], place: int) -> float | None:
    return values[place] if len(values) > place else None


def _share(value: float) -> str:
    return percent(value, 2 if value < 0.01 else 1)


def _three(value: float) -> str:
    return f"{value:.3g}"


_MAPS: tuple[tuple[str, str, Figure, Callable[[float], str]], ...] = (
    ("Codes flipped since the start", "share of the codes", lambda row: row.flips_init, _share),
    ("Codes flipped since the last look", "share of the codes", lambda row: row.flips, _share),
    (_ZEROS, "share of the codes; ternary alone has them", lambda row: row.zeros, _share),
    ("Near the threshold", "share of |latent / scale| < 0.05", lambda row: row.near_zero, _share),
    ("Scale of the weights", "median over the scales of a layer", lambda row: _at(row.scale, 1), _three),
    ("Scale of the inputs", "99th percentile over the tokens of a step", lambda row: _at(row.activation, 2), _three),
)
