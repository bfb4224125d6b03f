"""How many bit planes every layer gets, so that all of them fit a number of bytes: the plan of `weight.budget_mb`.

What a layer l of family f in block b costs at k planes is read off trials of whole families and whole blocks, each
alone at the most planes m and everything else float, and off its own rounding error e, as a share of its weights:

    cost(l, k) = family(f) * block(b) / sum over blocks of block(.) * e(l, k) / e(l, m)        nats a token

as if blocks shared the cost of a family as they share their own, and nats grew as squared errors do. They do while both
are small, which is why the trials are at m, with scales fitted to what inputs are worth (`importance`): untrained, a
part of one plane is often so far gone that all parts cost alike. Trials of every layer would be thirty times as many,
and of a layer alone is little to see. Outside the blocks a family's layers share its cost alike.

From the fewest planes everywhere on, the step that takes off most nats for its bytes is made, as long as it fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitnet_train.model.patterns import star_numbers
from bitnet_train.sensitivity.parts import Part

PLANES = (1, 2, 3, 4)


@dataclass(frozen=True)
class LayerCost:
    """A layer at each number of `PLANES`: what it costs in nats a token, and its bytes of planes and scales."""

    name: str
    nats: tuple[float, ...]
    num_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Allocation:
    """Planes of every layer by name, the bytes of all, and the sum of their costs, nats a token before training."""

    planes: dict[str, int]
    num_bytes: int
    nats: float

    def entries(self, base: int) -> list[dict[str, Any]]:
        """Return `weight.overrides` that say this over `weight.planes=base`: families first, then single layers."""
        families: dict[str, list[str]] = {}
        for name in self.planes:
            families.setdefault(star_numbers(name), []).append(name)
        entries: list[dict[str, Any]] = []
        for pattern, names in families.items():
            usual = Counter(self.planes[name] for name in names).most_common(1)[0][0]
            if usual != base:
                entries.append({"pattern": pattern, "planes": usual})
            entries += [{"pattern": name, "planes": self.planes[name]} for name in names if self.planes[name] != usual]
        return entries


def layer_costs(
    trials: Mapping[Part, float], errors: Mapping[str, Sequence[float]], num_bytes: Mapping[str, tuple[int, ...]]
) -> list[LayerCost]:
    """Return the cost of every layer in `num_bytes`.

    `trials` hold the nats of each family and block at the most of `PLANES`, `errors` the squared rounding error of each
    layer at every number of them.
    """
    families = {name: part for part in trials if part.kind == "family" for name in part.names}
    blocks = {name: part for part in trials if part.kind == "block" for name in part.names}
    total = sum(trials[part] for part in {*blocks.values()})

    def alone(name: str) -> float:
        is_shared = name in blocks and total > 0
        share = trials[blocks[name]] / total if is_shared else 1 / len(families[name].names)
        return trials[families[name]] * share

    def nats(name: str) -> tuple[float, ...]:
        least = errors[name][-1]
        return tuple(alone(name) * (error / least if least > 0 else 1.0) for error in errors[name])

    return [LayerCost(name, nats(name), sizes) for name, sizes in num_bytes.items()]


def allocate(layers: Sequence[LayerCost], budget_bytes: float) -> Allocation:
    """Choose the planes of every layer; the fewest everywhere, where not even those fit."""
    chosen = dict.fromkeys((layer.name for layer in layers), 0)
    left = budget_bytes - sum(layer.num_bytes[0] for layer in layers)
    while (step := _best_step(layers, chosen, left)) is not None:
        layer, to = step
        left -= layer.num_bytes[to] - layer.num_bytes[chosen[layer.name]]
        chosen[layer.name] = to
    return Allocation(
        {layer.name: PLANES[chosen[layer.name]] for layer in layers},
        sum(layer.num_bytes[chosen[layer.name]] for layer in layers),
        sum(layer.nats[chosen[layer.name]] for layer in layers),
    )


def _best_step(layers: Sequence[LayerCost], chosen: Mapping[str, int], left: float) -> tuple[LayerCost, int] | None:
    """Return the layer and the index of its planes that take off most nats a byte within the bytes that are left."""
    best, best_worth = None, 0.0
    for layer in layers:
        at = chosen[layer.name]
        for to in range(at + 1, len(PLANES)):
            added, saved = layer.num_bytes[to] - layer.num_bytes[at], layer.nats[at] - layer.nats[to]
            if added <= left and saved / added > best_worth:
                best, best_worth = (layer, to), saved / added
    return best
