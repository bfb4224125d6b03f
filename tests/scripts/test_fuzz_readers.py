"""A short run of `scripts/fuzz/readers.py`; the long one is run by hand."""

import random
from collections import Counter

import pytest

from scripts.fuzz import readers

pytest.importorskip("gguf", exc_type=ImportError)
pytestmark = pytest.mark.timeout(120)

COUNT = 60


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return readers.make_folders(tmp_path_factory.mktemp("doors"))


@pytest.mark.parametrize("door", ["gguf", "hf_bitnet", "packed"])
def test_a_damaged_file_is_refused_in_words_or_computes(folders, door):
    went = Counter()
    for number in range(COUNT):
        what, how, seconds = readers.fuzz(door, folders[door], 1, number)
        assert seconds < readers.SLOWEST_S, f"mutation {number}, {what}"
        went[how] += 1
    assert went["refused"] > went["works"], "most mutations must do harm"
    assert readers.open_door(door, folders[door]) == "works", "the folder was repaired after each"


@pytest.mark.parametrize("door", ["gguf", "hf_bitnet", "packed"])
def test_a_header_cut_anywhere_is_refused(folders, door):
    path = folders[door] / readers.HEADERS[door]
    whole = path.read_bytes()
    for length in range(0, readers.header_bytes(door, whole), 53):
        how, seconds = readers.attempt(door, folders[door], path, whole[:length], f"{length} bytes")
        assert how == "refused", length
        assert seconds < readers.SLOWEST_S


@pytest.mark.parametrize("door", ["gguf", "hf_bitnet", "packed"])
def test_a_mutation_is_repeatable(folders, door):
    for number in range(20):
        first, second = (readers.mutate(random.Random(f"3-{number}"), door, folders[door]) for _ in range(2))
        assert first == second
