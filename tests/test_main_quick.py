"""`--quick` is a choice of the configuration, and what is said beside it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitnet_train.__main__ import compose_call, main
from bitnet_train.cli.arguments import read_call
from bitnet_train.config import Config
from bitnet_train.config.layout import recipes


def composed(*words: str) -> Config:
    return compose_call(read_call(["run", *words, "--quiet"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes())
def test_every_recipe_becomes_under_half_a_minute_of_training_and_a_smaller_proof(name: str, tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").touch()
    path = [f"data.path={tmp_path / 'chats.jsonl'}"] if name == "lora_sft_chat" else []
    whole, quick = composed(name, *path), composed(name, *path, "--quick")
    assert (quick.trainer.max_minutes, quick.trainer.max_tokens) == (0.4, None)
    assert quick.validate.num_tokens < whole.validate.num_tokens
    assert quick.evaluate.max_tokens <= whole.evaluate.max_tokens
    assert not quick.blockwise.enabled, "what comes before the first step would use the time up"
    assert quick.weight == whole.weight, "the model that comes out is of the same kind"


@pytest.mark.parametrize(
    "word", ["trainer.max_steps=7", "max_steps=7", "trainer.max_tokens=7", "max_epochs=7", "max_minutes=7"]
)
def test_a_length_that_is_given_takes_the_place_of_that_of_quick(word: str) -> None:
    trainer = composed("quickstart", "--quick", word).trainer
    name = word.removeprefix("trainer.").partition("=")[0]
    assert getattr(trainer, name) == 7
    assert [trainer.max_tokens, trainer.max_minutes].count(None) >= 1
    assert trainer.max_minutes in (None, 7)


def test_quick_and_another_choice_of_debug_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstart", "--quick", "debug=on"]) == 2
    assert "`--quick` chooses `debug=quick`" in capsys.readouterr().err


@pytest.mark.slow
def test_a_quick_run_says_what_its_figures_are_and_proves_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"run.dir={tmp_path}", "logger=none", "max_steps=2", "data.max_documents=4", "trainer.precision=fp32"]
    assert main(["run", "quickstart", "--quick", *words, "evaluate.max_tokens=512", "trainer.num_threads=1"]) == 0
    said = capsys.readouterr()
    assert "figures say what comes" in said.err
    assert "passed" in said.out
