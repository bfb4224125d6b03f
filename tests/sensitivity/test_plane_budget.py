from __future__ import annotations

import itertools
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest

from bitnet_train.sensitivity.parts import parts_of
from bitnet_train.sensitivity.plane_budget import PLANES, LayerCost, allocate, layer_costs

NAMES = ("layers.0.up", "layers.0.down", "layers.1.up", "layers.1.down", "head")
BYTES = dict.fromkeys(NAMES, (10, 20, 30, 40))
TRIALS = {  # nats at four planes
    "layers.*.up": 0.1,
    "layers.*.down": 0.3,
    "head": 0.03,
    "layers.0.*": 0.3,
    "layers.1.*": 0.1,
}
ERRORS = dict.fromkeys(NAMES, (0.4, 0.1, 0.02, 0.005)) | {"layers.1.down": (0.4, 0.2, 0.1, 0.05)}


def costs():
    parts = parts_of(NAMES)
    trials = {part: next(TRIALS[key] for key in TRIALS if set(part.names) == held(key)) for part in parts}
    return layer_costs(trials, ERRORS, BYTES)


def held(pattern):
    return {name for name in NAMES if fnmatchcase(name, pattern)}


def test_blocks_share_the_cost_of_a_family_as_they_share_their_own_and_nats_grow_as_rounding_errors():
    found = {cost.name: cost.nats for cost in costs()}
    assert found["layers.0.down"] == pytest.approx((0.225 * 80, 0.225 * 20, 0.225 * 4, 0.225))
    assert found["layers.1.down"] == pytest.approx((0.075 * 8, 0.075 * 4, 0.075 * 2, 0.075))
    assert found["head"] == pytest.approx((2.4, 0.6, 0.12, 0.03)), "a layer outside the blocks has its family's own"
    assert sum(found[name][-1] for name in NAMES) == pytest.approx(0.1 + 0.3 + 0.03)


def test_a_layer_that_loses_nothing_at_the_most_planes_costs_alike_at_all():
    parts = dict.fromkeys(parts_of(("head",)), TRIALS["head"])
    assert layer_costs(parts, {"head": (0.1, 0.01, 0.0)}, {"head": (1, 2, 3)})[0].nats == (0.03,) * 3


def test_the_budget_is_kept_and_what_it_leaves_does_not_buy_another_plane():
    for budget in range(50, 210, 5):
        found = allocate(costs(), budget)
        assert found.num_bytes <= budget
        assert found.num_bytes == sum(BYTES[name][PLANES.index(k)] for name, k in found.planes.items())
        assert budget - found.num_bytes < 10 or set(found.planes.values()) == {4}


def test_what_costs_most_gets_planes_first_and_more_bytes_never_cost_more():
    assert allocate(costs(), 60).planes == dict.fromkeys(NAMES, 1) | {"layers.0.down": 2}
    assert allocate(costs(), 200).planes == dict.fromkeys(NAMES, 4)
    nats = [allocate(costs(), budget).nats for budget in range(50, 201, 10)]
    assert all(after <= before for before, after in itertools.pairwise(nats))


def test_two_planes_at_once_are_taken_where_the_first_alone_buys_little():
    steep = LayerCost("a", (1.0, 0.99, 0.0, 0.0), (10, 20, 30, 40))
    assert allocate([steep, replace(steep, name="b", nats=(1.0, 0.8, 0.7, 0.7))], 40).planes == {"a": 3, "b": 1}


def test_a_plane_that_makes_it_worse_is_not_bought():
    assert allocate([LayerCost("a", (0.1, 0.2, 0.3, 0.4), (10, 20, 30, 40))], 100).planes == {"a": 1}


@pytest.mark.parametrize("base", PLANES)
def test_the_entries_say_the_planes_of_every_layer_whatever_goes_without_saying(base):
    for budget in range(50, 201, 10):
        found = allocate(costs(), budget)
        entries = found.entries(base)
        said = {
            name: next((e["planes"] for e in reversed(entries) if fnmatchcase(name, e["pattern"])), base)
            for name in NAMES
        }
        assert said == found.planes
