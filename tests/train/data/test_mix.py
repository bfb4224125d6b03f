from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_train.errors import ConfigError
from bitnet_train.train.data.mix import Mix
from bitnet_train.train.data.mix_parts import MixPart, read_mix
from bitnet_train.train.data.module import BitDataModule
from bitnet_train.train.data.sampler import StepBatchSampler
from bitnet_train.train.data.settings import KINDS, DataConfig
from bitnet_train.train.data.summary import data_lines
from tests.fixtures.data_examples import make_llama, make_tokenizer, write_jsonl

PARTS = st.lists(st.tuples(st.integers(1, 30), st.floats(0.01, 100)), min_size=1, max_size=5)


def part_of(mix: Mix, rows: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum(mix.part_rows), rows, side="right")


@settings(deadline=None)
@given(PARTS)
def test_the_shares_of_a_pass_are_the_weights_to_a_row(parts: list[tuple[int, float]]) -> None:
    mix = Mix(tuple(rows for rows, _ in parts), tuple(weight for _, weight in parts))
    shares = mix.shares()
    assert sum(shares) == mix.num_rows
    assert min(shares) >= 1
    wanted = [mix.num_rows * weight / sum(mix.weights) for weight in mix.weights]
    short = sum(max(0.0, 1 - rows) for rows in wanted)  # what goes to data sets that would have had no row
    assert all(abs(share - rows) <= 1 + short for share, rows in zip(shares, wanted, strict=True))


@pytest.mark.slow
@settings(deadline=None)
@given(PARTS, st.integers(0, 3))
def test_no_row_of_a_data_set_comes_twice_before_all_have_come_once(parts: list[tuple[int, float]], seed: int) -> None:
    mix = Mix(tuple(rows for rows, _ in parts), tuple(weight for _, weight in parts))
    rows = np.concatenate([mix.rows_of_pass(seed, number) for number in range(4)])
    counts = np.bincount(rows, minlength=mix.num_rows)
    for part in range(len(parts)):
        own = counts[part_of(mix, np.arange(mix.num_rows)) == part]
        assert own.max() - own.min() <= 1
        assert own.sum() == 4 * mix.shares()[part]


def test_every_pass_holds_the_weights_in_an_order_of_its_own() -> None:
    mix = Mix((6, 6), (2.0, 1.0))
    passes = [mix.rows_of_pass(0, number) for number in range(3)]
    assert [Counter(part_of(mix, rows).tolist()) for rows in passes] == [Counter({0: 8, 1: 4})] * 3
    assert len({tuple(part_of(mix, rows)) for rows in passes}) == 3
    assert np.array_equal(passes[1], mix.rows_of_pass(0, 1))
    assert not np.array_equal(passes[1], mix.rows_of_pass(1, 1))


@settings(deadline=None)
@given(st.integers(0, 40))
def test_a_sampler_that_starts_anywhere_draws_what_was_left(start: int) -> None:
    mix = Mix((7, 20, 3), (1.0, 1.0, 3.0))
    whole = list(islice(StepBatchSampler(30, 4, 5, mix=mix), 60))
    assert list(islice(StepBatchSampler(30, 4, 5, mix=mix, start=start), 20)) == whole[start : start + 20]


def test_entries_are_read() -> None:
    entries: list[dict[str, Any]] = [{"path": "a", "weight": 2}, {"path": "b", "kind": "text"}]
    assert read_mix(entries, KINDS) == (MixPart("a", 2.0), MixPart("b", 1.0, "text"))


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({"weight": 1}, "names no file or folder"),
        ({"path": ""}, "names no file or folder"),
        ({"path": "a", "wieght": 1}, r"there is no key `wieght`\. Allowed: path, weight"),
        ({"path": "a", "weight": 0}, "must be a finite number above 0"),
        ({"path": "a", "weight": float("inf")}, "must be a finite number above 0"),
        ({"path": "a", "weight": True}, "must be a finite number above 0"),
        ({"path": "a", "kind": "chats"}, r"`kind: chats` is unknown\. Allowed: auto, text"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(entry: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=rf"`data\.mix\[1\].*{part}"):
        read_mix([{"path": "a"}, entry], KINDS)


def mixed(folder: Path, **values: Any) -> BitDataModule:
    turns = [[("user", f"what is {n}?"), ("assistant", f"{n}, of course.")] for n in range(30)]
    chats = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in turns]
    write_jsonl(folder / "chats.jsonl", chats)
    write_jsonl(folder / "texts.jsonl", [{"text": f"{n} and some words " * 6, "id": n} for n in range(40)])
    entries = ({"path": str(folder / "chats.jsonl"), "weight": 3}, {"path": str(folder / "texts.jsonl")})
    config = DataConfig(source="files", mix=entries, context_tokens=96, validation_fraction=0.2, **values)
    return BitDataModule(config, make_tokenizer(), 4, 0, folder / "cache", make_llama(positions=128))


@pytest.mark.parametrize("packing", ["never", "auto"])
def test_chats_and_texts_are_read_in_the_shares_of_their_weights(packing: str, tmp_path: Path) -> None:
    data = mixed(tmp_path, packing=packing)
    facts = data.describe()
    assert [part.share for part in facts.mix] == pytest.approx([0.75, 0.25], abs=1 / facts.train_rows)
    assert facts.kind == "chat and text"
    assert facts.train.documents + facts.validation.documents == 70
    assert facts.files["train"] == ("chats.jsonl", "texts.jsonl")
    assert facts.unused_fields == {"id": 40}
    steps = facts.train_rows  # four passes
    trained = [int(n) for batch in islice(data.train_dataloader(), steps) for n in (batch["labels"] != -100).sum(1)]
    assert len(trained) == 4 * facts.train_rows
    assert len(data.validation_rows()["input_ids"]) == facts.validation_rows == facts.validation.rows
    said = next(line for line in data_lines(facts) if line.startswith("Mix of the rows read: "))
    assert f"chats.jsonl {facts.mix[0].share:.0%} ({facts.mix[0].rows:,} rows)" in said


def test_a_mix_continues_in_the_middle_of_a_pass(tmp_path: Path) -> None:
    whole = list(islice(mixed(tmp_path).train_dataloader(), 20))
    resumed = mixed(tmp_path)
    resumed.load_state_dict({"next_batch": 7})
    for got, expected in zip(islice(resumed.train_dataloader(), 13), whole[7:], strict=True):
        assert got.keys() == expected.keys()
        assert all(bool((got[name] == expected[name]).all()) for name in got)


def test_a_packed_data_set_and_one_that_is_not_share_a_batch(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "short.jsonl", [{"text": f"{n} short"} for n in range(40)])
    write_jsonl(tmp_path / "long.jsonl", [{"text": f"{n} and some words " * 12} for n in range(20)])
    entries = tuple({"path": str(tmp_path / name)} for name in ("short.jsonl", "long.jsonl"))
    config = DataConfig(source="files", mix=entries, context_tokens=48, min_tokens=2, validation_fraction=0.2)
    data = BitDataModule(config, make_tokenizer(), 8, 0, tmp_path / "cache", make_llama())
    assert 0 < data.describe().layout.rows < data.describe().layout.documents
    batch = next(iter(data.train_dataloader()))
    firsts = (batch["position_ids"] == 0).sum(1) - (batch["real_tokens"][:, -1] == 0).long()
    assert int(firsts.min()) == 1 < int(firsts.max())
    looked_at = data.some_training_rows(6)
    assert "attention_mask" in looked_at
    assert len(looked_at["input_ids"]) == 6
