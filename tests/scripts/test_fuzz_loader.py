"""A short run of `scripts/fuzz/loader.py`; the long one is run by hand, under the sanitisers."""

from __future__ import annotations

import random
import shutil
from collections import Counter

import pytest

from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.runtime.native.model import NativeModel
from scripts.fuzz import loader

COUNT = 200

FOLDERS = {
    "biased_and_tied": {"family": "llama_biased_and_tied"},
    "ternary_tables": {
        "family": "qwen3",
        "weight": WeightScheme("ternary", "group", 32),
        "roles": ("attention", "mlp", "head", "embedding"),
    },
    "int8_tables": {"family": "mistral_without", "embedding": "int8", "head": "int8"},
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_damaged_folder_is_refused_in_words_or_works(make_folder, tmp_path, kind) -> None:
    folder = make_folder(**FOLDERS[kind], tokenizer=False)
    copy = shutil.copytree(folder, tmp_path / "copy")
    went: Counter[str] = Counter()
    for number in range(COUNT // len(FOLDERS) + 1):
        what, how, seconds = loader.fuzz(copy, 1, number)
        assert seconds < loader.SLOWEST_S, f"mutation {number}, {what}"
        went[how] += 1
    assert went["refused"] > went["works"], "most mutations must do harm"
    assert went["works"] > 0, "and some must not, or the folder was broken from the start"
    assert NativeModel.load(copy).generate_ids([1], 2, stop_ids=()), "the folder was repaired after each"


def test_a_mutation_is_repeatable(make_folder) -> None:
    folder = make_folder()
    for number in range(20):
        first, second = (loader.mutate(random.Random(f"3-{number}"), folder) for _ in range(2))
        assert first == second
