"""`bitnet-train evaluate` on a real run: the bundled model, two steps of training, everything it can measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig

from bitnet_train.__main__ import main
from bitnet_train.errors import DataError
from bitnet_train.importers.load import tiny_folder
from bitnet_train.model.convert import convert
from bitnet_train.packed import export_packed
from bitnet_train.verbs.evaluate import _read_text
from scripts.corpus import choices

pytestmark = pytest.mark.slow  # one run for all of them
PROSE = "\n".join(
    f"Paragraph {number} says that " + " ".join(f"word{number * 7 + at}" for at in range(80)) for number in range(8)
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "prose.txt").write_text(PROSE)
    assert choices.main([str(folder / "prose.txt"), str(folder / "next.jsonl")]) == 0
    chats = [{"question_id": number, "turns": ["Hello", "And?"]} for number in range(3)]
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    return folder


def evaluated(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["evaluate", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_run_itself_was_evaluated_against_its_original_and_has_a_report(finished: Path) -> None:
    facts = json.loads((finished / "facts" / "evaluate.json").read_text())
    summary = json.loads((finished / "facts" / "run.json").read_text())
    (held_out,) = facts["texts"]
    assert held_out["held_out"]
    assert held_out["student"]["nats"] == facts["nats"] == summary["perplexity"]["trained_nats"]
    assert held_out["teacher"]["perplexity"] == pytest.approx(summary["perplexity"]["full_precision"], rel=1e-6)
    assert held_out["kl"] > 0
    assert facts["decode"]["tokens_per_s"] > 0
    assert "quickstart" in (finished / "evaluation.html").read_text()
    (told,) = summary["texts"]
    assert told["held_out"]
    assert (told["tokens"], told["trained"]) == (summary["perplexity"]["tokens"], summary["perplexity"]["trained"])
    assert (told["ratio"], told["kl"]) == (held_out["perplexity_ratio"], held_out["kl"])


def test_a_model_that_states_no_longest_text_is_validated_and_measured(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder())
    size = len(tokenizer)
    bloom = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=size, hidden_size=32, n_layer=1, n_head=2)).eval()
    assert not hasattr(bloom.config, "max_position_embeddings")
    convert(bloom)
    export_packed(bloom, tokenizer, tmp_path / "bloom")
    assert main(["validate", str(tmp_path / "bloom"), "--quiet", "validate.num_tokens=64"]) == 0
    words = (f"evaluate.texts=[{files / 'prose.txt'}]", f"evaluate.choices=[{files / 'next.jsonl'}]")
    limits = ("evaluate.max_questions=2", "evaluate.max_tokens=256", "evaluate.window_tokens=64")
    facts = evaluated(capsys, str(tmp_path / "bloom"), *words, *limits)
    assert facts["texts"][0]["student"]["tokens"] > 0
    assert len(facts["choices"]) == 1


def test_texts_choices_and_prompts_are_measured_for_both_models(
    finished: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = evaluated(
        capsys,
        str(finished),
        f"evaluate.texts=[{files / 'prose.txt'}]",
        f"evaluate.choices=[{files / 'next.jsonl'}]",
        f"evaluate.prompts=[{files / 'chat.jsonl'}]",
        "evaluate.num_prompts=1",
        "evaluate.prompt_new_tokens=4",
        "evaluate.window_tokens=64",
        "evaluate.window_overlap=false",
    )
    assert [text["name"] for text in facts["texts"]] == ["held-out", "prose"]
    assert facts["texts"][1]["window_tokens"] == 64
    assert facts["texts"][1]["student"]["tokens"] % 63 == 0, "without overlap a window of 64 predicts 63"
    (choices,) = facts["choices"]
    assert (choices["questions"], choices["chance"]) == (8, 0.25)
    assert choices["teacher"] is not None
    (prompts,) = facts["prompts"]
    assert (prompts["kind"], len(prompts["turns"]), prompts["engines"]["student"]) == ("chat", 2, "native")
    report = (finished / "evaluation.md").read_text()
    assert "Multiple choice: next" in report
    assert "Paragraph" not in report, "texts to score are not shown"


def test_an_artefact_alone_is_measured_without_its_original_and_says_why(
    finished: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "alone"
    (finished / "artefact").rename(alone)
    try:
        facts = evaluated(capsys, str(alone), f"evaluate.texts=[{files / 'prose.txt'}]", f"evaluate.report={tmp_path}")
        compared = evaluated(capsys, str(alone), f"evaluate.texts=[{files / 'prose.txt'}]", "evaluate.against=tiny")
        assert main(["evaluate", str(alone)]) == 2
    finally:
        alone.rename(finished / "artefact")
    assert facts["texts"][0]["teacher"] is None
    assert [text["name"] for text in facts["texts"]] == ["prose"]
    assert not facts["texts"][0]["held_out"]
    assert "`evaluate.against=MODEL`" in facts["not_compared"]
    assert (tmp_path / "evaluation.html").is_file()
    assert compared["texts"][0]["kl"] > 0
    assert "nats" not in compared, "nothing of the run's own was held out"
    assert "no held-out text" in capsys.readouterr().err


def test_a_run_can_be_evaluated_without_its_original_and_a_tracker_that_is_new_is_told_all_of_it(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = evaluated(capsys, str(finished), "evaluate.against=none", "logger=tensorboard")
    assert facts["texts"][0]["teacher"] is None
    assert facts["not_compared"] == "`evaluate.against=none`."
    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    own = [json.loads(line) for line in (finished / "metrics.jsonl").open()]
    losses = [(row["step"], pytest.approx(row["loss"])) for row in own if "loss" in row]
    assert [(each.step, each.value) for each in events.Scalars("train/loss")] == losses
    (perplexity,) = events.Scalars("summary/perplexity")
    assert perplexity.value == pytest.approx(facts["perplexity"])
    assert perplexity.step == own[-1]["step"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("evaluate.text=/nowhere/a.txt", "evaluate.texts=[FILE]"),
        ("evaluate.texts=[/nowhere/a.txt]", "evaluate.texts=/nowhere/a.txt"),
        ("evaluate.choices=[/nowhere/a.jsonl]", "evaluate.choices=/nowhere/a.jsonl"),
        ("evaluate.prompts=[/nowhere/a.jsonl]", "evaluate.prompts=/nowhere/a.jsonl"),
        ("evaluate.frontier=/nowhere/a.json", "evaluate.frontier=/nowhere/a.json"),
        ("evaluate.window_tokens=4096", "evaluate.window_tokens=4096"),
        ("evaluate.prompt_new_tokens=512", "evaluate.prompt_new_tokens=512"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(
    word: str, expected: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(finished), word]) == 2
    assert f"`{expected}`" in capsys.readouterr().err


def test_a_model_with_another_vocabulary_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from bitnet_train.importers.load import tiny_folder

    other = shutil.copytree(tiny_folder(), tmp_path / "other")
    tokens = json.loads((other / "tokenizer.json").read_text())
    first, second = list(tokens["model"]["vocab"])[300:302]
    vocab = tokens["model"]["vocab"]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    assert main(["evaluate", str(finished), f"evaluate.against={other}"]) == 2
    assert "another vocabulary" in capsys.readouterr().err


def test_a_text_that_is_not_utf8_is_refused_by_name(tmp_path):
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match=r"`evaluate\.texts=.*latin\.txt` cannot be read as UTF-8 text"):
        _read_text(tmp_path / "latin.txt")
