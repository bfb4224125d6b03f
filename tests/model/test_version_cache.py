import copy

import torch
from torch import nn

from bitnet_train.model.version_cache import VersionCache


def counting():
    calls = []
    return calls, lambda: calls.append(None) or len(calls)


def test_a_value_is_computed_once_while_nothing_changes():
    cache, tensor = VersionCache(), torch.ones(3)
    calls, compute = counting()
    assert [cache.get([tensor], compute) for _ in range(3)] == [1, 1, 1]
    assert len(calls) == 1


def test_a_change_in_place_a_replacement_and_a_clear_each_compute_again():
    cache, parameter = VersionCache(), nn.Parameter(torch.ones(3))
    _, compute = counting()
    assert cache.get([parameter], compute) == 1
    with torch.no_grad():
        parameter.add_(1)
    assert cache.get([parameter], compute) == 2
    parameter.data = torch.zeros(3)
    assert cache.get([parameter], compute) == 3
    cache.clear()
    assert cache.get([parameter], compute) == 4


def test_an_address_given_to_new_data_is_not_mistaken_for_the_old():
    cache = VersionCache()
    _, compute = counting()
    seen = [cache.get([torch.full((1000,), float(number))], compute) for number in range(20)]
    assert seen == list(range(1, 21))


def test_a_tensor_of_inference_mode_is_never_kept():
    cache = VersionCache()
    _, compute = counting()
    with torch.inference_mode():
        tensor = torch.ones(3)
    assert [cache.get([tensor], compute) for _ in range(2)] == [1, 2]


def test_a_copy_starts_empty():
    cache, tensor = VersionCache(), torch.ones(3)
    _, compute = counting()
    cache.get([tensor], compute)
    assert copy.deepcopy(cache).get([tensor], compute) == 2
