"""The planes of every layer, chosen once a run so that its packed folder keeps within `weight.budget_mb`.

Chosen by trials on held-out rows before any training (`sensitivity.plane_budget`), shown, and kept in
`facts/planes.json`, where every later stage finds them (`run.plane_plan`). Layers that `weight.overrides` names are as
it says. Ternary codes take as many bytes as two planes and are never chosen.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from bitnet_train.config import Config, changed
from bitnet_train.errors import ConfigError
from bitnet_train.importers.load import LoadedModel
from bitnet_train.model.converted import empty_converted
from bitnet_train.model.overrides import last_fitting, read_overrides
from bitnet_train.model.patterns import star_numbers
from bitnet_train.model.plan import Plan
from bitnet_train.packed.planned import planned_bytes
from bitnet_train.progress import track
from bitnet_train.run import assembly
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.exports import check_exports
from bitnet_train.run.facts import PlanesFacts
from bitnet_train.run.plane_plan import kept_planes
from bitnet_train.sensitivity.parts import parts_of
from bitnet_train.sensitivity.plane_budget import PLANES, Allocation, LayerCost, allocate, layer_costs
from bitnet_train.sensitivity.scan import Scanner, total_bytes
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.loop.checkpoint_manifest import list_checkpoints


def settle_planes(
    config: Config, original: LoadedModel, data: BitDataModule, directory: RunDirectory, console: Console
) -> None:
    """Choose the planes of every layer and keep them in `directory`, unless that was done for the same settings.

    Once a run has checkpoints its planes stay, whatever version wrote them and wherever its model lies now.
    Raises ConfigError for a model that is 1-bit already, and a budget below what one plane everywhere takes.
    """
    budget_mb = config.weight.budget_mb
    if budget_mb is None:
        return
    if original.record is not None:
        raise ConfigError(
            f"`weight.budget_mb={budget_mb:g}` chooses planes for float weights, and those of {original.source} are "
            "1-bit already. Drop it."
        )
    asked = {"weight": str(config.weight), "selection": str(config.model.selection), "source": config.model.source}
    kept = kept_planes(config)
    if kept is not None and (kept.asked == asked or list_checkpoints(directory.checkpoints)):
        return
    unplanned = changed(config, {"weight.budget_mb": None})
    plan = assembly.plan_of(unplanned, original)
    rest, layers = _rest_bytes(unplanned, original, plan), _free_layers(unplanned, plan)
    least = rest + sum(sizes[0] for sizes in layers.values())
    if least > budget_mb * 1e6:
        raise ConfigError(
            f"`weight.budget_mb={budget_mb:g}` is below the {least / 1e6:.1f} MB of this model with one plane in every "
            f"layer, {rest / 1e6:.1f} MB of which are tables, other layers and the tokenizer. Give more, or fewer "
            "scales: `weight.group_size`, `weight.granularity=row`."
        )
    costs = _costs(unplanned, original, data, directory, plan, layers)
    found = allocate(costs, budget_mb * 1e6 - rest)
    console.print(_table(found))
    console.print(
        f"Planes for {budget_mb:g} MB: a folder of {(rest + found.num_bytes) / 1e6:.1f} MB, {found.nats:.3g} nats a "
        f"token as the sum of what layers cost alone and untrained; {sum(cost.nats[0] for cost in costs):.3g} with one "
        "plane everywhere.",
        soft_wrap=True,
    )
    entries = tuple(found.entries(config.weight.planes))
    directory.keep(PlanesFacts(asked, rest + found.num_bytes, found.nats, found.planes, entries))
    check_exports(config, original)


def _rest_bytes(config: Config, original: LoadedModel, plan: Plan) -> int:
    """Return the bytes of the folder but for the layers that planes are chosen of."""
    tables = assembly.tables_of(config, original, plan)
    model = empty_converted(deepcopy(original.model.config), assembly.record_of(config, plan, tables))
    whole = planned_bytes(model, original.tokenizer, embedding=config.export.embedding, head=config.export.head)
    free = _free_layers(config, plan)
    return whole - sum(sizes[PLANES.index(config.weight.planes)] for sizes in free.values())


def _free_layers(config: Config, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return the layers that no override names, with their bytes at every number of planes."""
    overrides = read_overrides(config.weight.overrides, config.weight.scheme)
    return {
        row.name: tuple(total_bytes({row.name: replace(row.scheme, planes=k)}, {row.name: row.shape}) for k in PLANES)
        for row in plan.rows
        if row.scheme is not None and last_fitting(row.name, row.role, overrides) is None
    }


def _costs(
    config: Config,
    original: LoadedModel,
    data: BitDataModule,
    directory: RunDirectory,
    plan: Plan,
    layers: dict[str, tuple[int, ...]],
) -> list[LayerCost]:
    small = changed(config, {"evaluate.max_tokens": config.sensitivity.max_tokens})
    rows = assembly.held_out_rows(small, data)
    scanner = Scanner(original.model, plan, config.weight.scheme, config.activation, rows, fitted=True)
    schemes = {name: [replace(plan.schemes[name], planes=planes) for planes in PLANES] for name in layers}
    trials = scanner.alone(parts_of(tuple(layers)), {name: tried[-1] for name, tried in schemes.items()})
    each = track(schemes.items(), "rounding errors", len(schemes))
    errors = {name: [scanner.rounding_error(name, scheme) for scheme in tried] for name, tried in each}
    return layer_costs(trials, errors, layers)


def _table(found: Allocation) -> Table:
    """Return how many layers of each family have how many planes."""
    table = Table(title="Planes", box=SIMPLE, pad_edge=False, collapse_padding=True)
    for name in ("layers", *(f"{k} plane{'s' if k > 1 else ''}" for k in PLANES)):
        table.add_column(name, justify="left" if name == "layers" else "right", no_wrap=True)
    families: dict[str, list[int]] = {}
    for name, planes in found.planes.items():
        families.setdefault(star_numbers(name), []).append(planes)
    for family, planes in families.items():
        table.add_row(family, *(str(planes.count(k)) if k in planes else "" for k in PLANES))
    return table
