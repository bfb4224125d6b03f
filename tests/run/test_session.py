"""Nothing is done twice in one process: counted while a whole run goes by, on the real parts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bitnet_train.__main__ import main
from bitnet_train.bench import decode_speed
from bitnet_train.config import changed
from bitnet_train.config.compose import compose
from bitnet_train.importers.load import load_pretrained
from bitnet_train.run import assembly, session
from bitnet_train.run.session import Session
from bitnet_train.train.data import module as train_data
from bitnet_train.verbs import convert, train
from tests.fixtures.small_runs import small

pytestmark = pytest.mark.timeout(900)  # whole runs: on a loaded machine the usual limit is no sign of a fault


def words(run_dir: Path, *further: str) -> list[str]:
    return small(run_dir, "trainer.precision=fp32", *further)


def count_calls(monkeypatch: pytest.MonkeyPatch, *places: tuple[Any, str]) -> Counter[str]:
    """Count the calls of functions, which still do what they do."""
    counts: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            counts[name] += 1
            return function(*given, **named)

        return call

    for module, name in places:
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    return counts


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    """Return the directory of a whole run, and how often it called what is slow."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        counts = count_calls(
            patch,
            (session, "load_pretrained"),
            (train_data, "read_corpus"),
            (session, "load_packed"),
            (convert, "perplexity"),
            (decode_speed, "decode_speed"),
        )
        assert main(["run", "quickstart", "--quiet", *words(run_dir)]) == 0
    return run_dir, counts


@pytest.mark.slow
def test_a_run_loads_the_original_reads_the_text_and_times_each_model_once(whole: tuple[Path, Counter[str]]) -> None:
    run_dir, counts = whole
    assert counts == {"load_pretrained": 1, "read_corpus": 1, "load_packed": 1, "perplexity": 1, "decode_speed": 2}
    result = json.loads((run_dir / "facts" / "run.json").read_text())
    assert result["perplexity"]["full_precision"] < result["perplexity"]["swapped"]
    assert result["decode"]["packed"]["engine"] == "native"
    assert result["decode"]["full_precision"]["engine"] == "torch"
    assert result["decode_tokens_per_s"] == result["decode"]["packed"]["tokens_per_s"]
    stages_of_run = ["convert", "train", "merge", "export", "validate", "evaluate", "result"]
    assert list(result["stage_seconds"]) == stages_of_run
    assert min(result["stage_seconds"].values()) > 0


@pytest.mark.slow
def test_a_run_writes_what_its_stages_write_one_by_one(whole: tuple[Path, Counter[str]], tmp_path: Path) -> None:
    assert main(["train", "quickstart", "--quiet", *words(tmp_path / "apart")]) == 0
    for verb in ("merge", "export", "evaluate"):
        assert main([verb, str(tmp_path / "apart"), "--quiet"]) == 0
    runs = whole[0], tmp_path / "apart"
    hashes = [json.loads((run / "artefact" / "manifest.json").read_text())["files"] for run in runs]
    assert hashes[0] == hashes[1]
    held_out = [json.loads((run / "facts" / "evaluate.json").read_text())["texts"] for run in runs]
    assert held_out[0] == held_out[1]


@pytest.mark.slow
def test_a_run_compared_with_another_model_still_measures_its_original(tmp_path: Path) -> None:
    assert main(["run", "quickstart", "--quiet", *words(tmp_path / "run", "evaluate.against=none")]) == 0
    result = json.loads((tmp_path / "run" / "facts" / "run.json").read_text())
    assert 1.0 < result["perplexity"]["full_precision"] < result["perplexity"]["swapped"]
    assert result["decode"]["full_precision"]["tokens_per_s"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_original_is_as_in_its_file_after_training(precision: str, tmp_path: Path) -> None:
    given = words(tmp_path / "run", f"trainer.precision={precision}")
    config = changed(compose("quickstart", given).config, {"quiet": True})
    shared = Session(config)
    before = shared.original()
    train.train(config, shared)
    after = shared.original()
    assert (after is before) == (precision == "fp32")
    kept, fresh = after.model.state_dict(), load_pretrained("tiny").model.state_dict()
    assert kept.keys() == fresh.keys()
    assert [name for name in fresh if not torch.equal(kept[name], fresh[name])] == []


@pytest.mark.slow
def test_text_does_not_keep_what_trained_on_it(tmp_path: Path) -> None:
    config = changed(compose("quickstart", words(tmp_path / "run")).config, {"quiet": True})
    shared = Session(config)
    train.train(config, shared)
    data = shared.data(assembly.open_run(config)[1])
    assert data.trainer is None
    assert data.teacher is None
    assert len(data.validation_rows()["input_ids"]) > 0
