"""A short run of `scripts/fuzz_readers.py`; the long one is run by hand."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("gguf", exc_type=ImportError)
pytestmark = pytest.mark.timeout(120)

COUNT = 60
SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_readers.py"


@pytest.fixture(scope="module")
def fuzz_readers():
    spec = importlib.util.spec_from_file_location("fuzz_readers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folders(fuzz_readers, tmp_path_factory):
    return fuzz_readers.make_folders(tmp_path_factory.mktemp("doors"))


@pytest.mark.parametrize("door", ["gguf", "hf_bitnet", "packed"])
def test_a_damaged_file_is_refused_in_words_or_computes(fuzz_readers, folders, door):
    went = Counter()
    for number in range(COUNT):
        what, how, seconds = fuzz_readers.fuzz(door, folders[door], 1, number)
        assert seconds < fuzz_readers.SLOWEST_S, f"mutation {number}, {what}"
        went[how] += 1
    assert went["refused"] > went["works"], "most mutations must do harm"
    assert fuzz_readers.open_door(door, folders[door]) == "works", "the folder was repaired after each"


@pytest.mark.parametrize("door", ["gguf", "hf_bitnet", "packed"])
def test_a_header_cut_anywhere_is_refused(fuzz_readers, folders, door):
    path = folders[door] / fuzz_readers.HEADERS[door]
    whole = path.read_bytes()
    for length in range(0, fuzz_readers.header_bytes(door, whole), 53):
        how, seconds = fuzz_readers.attempt(door, folders[door], path, whole[:length], f"{length} bytes")
        assert how == "refused", length
        assert seconds < fuzz_readers.SLOWEST_S


@pytest.mark.parametrize("door", ["gguf", "hf_bitnet", "packed"])
def test_a_mutation_is_repeatable(fuzz_readers, folders, door):
    for number in range(20):
        first, second = (
            fuzz_readers.mutate(fuzz_readers.random.Random(f"3-{number}"), door, folders[door]) for _ in range(2)
        )
        assert first == second
