"""Texts on the way: what a run writes of them is bounded, handed on, and changes nothing."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bitnet_train.importers.load import tiny_folder
from bitnet_train.train.loop import samples as samples_module
from bitnet_train.train.loop.samples import SAMPLES_FILE, Sample, Samples
from bitnet_train.train.trackers.tracking import METRICS_FILE
from tests.fixtures.tiny_run import VOCABULARY, DieAt, run, tiny_module, trained_tensors


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_folder())


def writing(root: Path, tokenizer: PreTrainedTokenizerBase, count: int, **more: object) -> Samples:
    return Samples(root, tokenizer, "a prompt", [1, VOCABULARY - 1, 3], count, max_new_tokens=4, **more)  # type: ignore


def losses(root: Path) -> list[float]:
    rows = [json.loads(line) for line in (root / METRICS_FILE).read_text().splitlines()]
    return [row.get("loss", row.get("val_ce")) for row in rows]


def steps(root: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (root / SAMPLES_FILE).read_text().splitlines()]


def test_texts_are_handed_on_and_losses_weights_and_random_states_stay_the_same(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    received: list[Sample] = []
    with_texts, without = tiny_module(steps=4), tiny_module(steps=4)
    texts = writing(tmp_path / "a", tokenizer, 5, receive=received.append)
    run(tmp_path / "a", with_texts, callbacks=[texts], validate_every_steps=1)
    state = torch.get_rng_state()
    run(tmp_path / "b", without, validate_every_steps=1)
    assert torch.equal(state, torch.get_rng_state())
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    expected = trained_tensors(without)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in trained_tensors(with_texts).items())
    assert [sample.step for sample in received] == steps(tmp_path / "a") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("count", "expected"), [(0, None), (3, [0, 2, 4])])
def test_so_many_texts_are_written_as_are_asked_for(
    count: int, expected: list[int] | None, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    run(tmp_path, tiny_module(steps=4), callbacks=[writing(tmp_path, tokenizer, count)], validate_every_steps=1)
    assert (steps(tmp_path) if (tmp_path / SAMPLES_FILE).exists() else None) == expected


def test_texts_of_steps_that_are_made_again_go(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    interrupted = [writing(tmp_path, tokenizer, 3), DieAt(3, signal.SIGTERM)]
    with pytest.raises(SystemExit):
        run(tmp_path, tiny_module(steps=6), callbacks=interrupted, validate_every_steps=1)
    lines = (tmp_path / SAMPLES_FILE).read_text()
    assert steps(tmp_path) == [0, 3]
    later = {"step": 100, "prompt": "a prompt", "text": "of another way", "seconds": 0.1}
    (tmp_path / SAMPLES_FILE).write_text(lines + json.dumps(later) + '\n{"step": 101, "pro')
    run(tmp_path, tiny_module(steps=6), callbacks=[writing(tmp_path, tokenizer, 3)], resume="auto")
    assert steps(tmp_path) == [0, 3, 6]
    assert (tmp_path / SAMPLES_FILE).read_text().startswith(lines)


def test_texts_that_would_take_too_long_are_left_out_and_it_is_said_once(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(samples_module, "ALWAYS_S", 0.0)
    monkeypatch.setattr(samples_module, "SHARE", 1e-9)
    run(tmp_path, tiny_module(steps=4), callbacks=[writing(tmp_path, tokenizer, 5)], validate_every_steps=1)
    assert steps(tmp_path) == [0]
    assert capsys.readouterr().err.count("no text is written at some steps") == 1
