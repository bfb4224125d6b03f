from __future__ import annotations

import random

import numpy as np
import torch

from bitnet_train.train.loop.rng import generator_states, restore_generators, seed_step


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))]


def test_restored_generators_go_on_where_they_were() -> None:
    draw()
    states = generator_states()
    expected = draw() + draw()
    seed_step(1, 2, 3)
    restore_generators(states)
    assert draw() + draw() == expected


def test_a_step_draws_the_same_numbers_whatever_came_before() -> None:
    seed_step(5, 10, 0)
    expected = draw()
    draw()
    seed_step(5, 10, 0)
    assert draw() == expected


def test_seeds_steps_and_ranks_draw_different_numbers() -> None:
    drawn = []
    for given in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (11, 1, 0), (1, 11, 0)]:
        seed_step(*given)
        drawn.append(tuple(draw()))
    assert len({value for numbers in drawn for value in numbers}) == 4 * len(drawn)
