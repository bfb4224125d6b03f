"""Keys that a verb does not read, over the table of the verbs that come after training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bitnet_train import verbs
from bitnet_train.__main__ import main
from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.config.suggest import known_keys
from bitnet_train.config.unread import refuse_unread_keys
from bitnet_train.errors import ConfigError
from bitnet_train.verbs import ANY_MODEL, MODEL, RUN, TALKS, VERBS

READS = {name: verb.reads for name, verb in VERBS.items()}
LATER = [name for name, verb in VERBS.items() if verb.reads and verb.is_stage]
OF_THE_RUN = {"model.source", "adapter.kind"}  # read as what was trained, whatever is asked now
FOREIGN = {
    "merge": "generate.prompt=x",
    "export": "evaluate.max_tokens=5",
    "validate": "generate.seed=3",
    "evaluate": "validate.num_prompts=5",
    "generate": "bench.repeats=2",
    "chat": "generate.max_new_tokens=5",
    "bench": "validate.num_prompts=5",
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(compose("quickstart").config))
    return tmp_path / "run"


def test_the_table_names_verbs_and_keys_that_exist() -> None:
    assert set(LATER) == FOREIGN.keys()
    for entry in {entry for entries in READS.values() for entry in entries}:
        assert any(name == entry or name.startswith(f"{entry}.") for name in known_keys()), entry


def test_the_verbs_that_work_on_what_training_left_are_those_with_keys_of_their_own() -> None:
    assert [name for name, verb in VERBS.items() if verb.word in (RUN, MODEL, ANY_MODEL, TALKS)] == LATER


@pytest.mark.parametrize("verb", LATER)
def test_every_key_that_the_file_of_a_verb_reads_is_in_its_row(verb: str) -> None:
    source = Path(verbs.__file__).with_name(f"{VERBS[verb].function}.py").read_text(encoding="utf-8")
    read = set(re.findall(r"\bconfig\.(\w+\.\w+)", source)) - OF_THE_RUN
    assert read <= set(known_keys())
    assert {key for key in read if not any(f"{key}.".startswith(f"{entry}.") for entry in READS[verb])} == set()


@pytest.mark.parametrize("verb", LATER)
def test_a_key_that_a_verb_does_not_read_is_refused_with_the_verbs_that_do(
    verb: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.rglob("*"))
    word = FOREIGN[verb]
    assert main([verb, str(run), word]) == 2
    told = capsys.readouterr().err
    assert f"`{word}` has no effect: `bitnet-train {verb}` does not read it. It belongs to: run, " in told
    assert word.partition(".")[0] in told.partition("belongs to")[2]
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("verb", LATER)
def test_the_keys_of_a_verb_the_choices_of_files_and_the_recorded_keys_pass(verb: str, run: Path) -> None:
    recorded = yaml.safe_load((run / "config.yaml").read_text())
    recorded["generate"]["seed"] = 9
    (run / "config.yaml").write_text(yaml.safe_dump(recorded))
    own = [f"{verb}.{name}" for name in ("num_tokens", "repeats", "max_tokens", "max_new_tokens")]
    words = [f"{name}=7" for name in own if name in known_keys()]
    composed = compose(str(run), [*words, "debug=tiny", "trainer.num_threads=1"])
    refuse_unread_keys(composed.config, composed.origins, composed.target, verb, READS)


def test_training_verbs_record_every_key_for_later_ones() -> None:
    composed = compose("quickstart", ["generate.prompt=x", "validate.num_prompts=5"])
    for verb in VERBS:
        if VERBS[verb].is_stage and verb not in LATER:
            refuse_unread_keys(composed.config, composed.origins, composed.target, verb, READS)


def test_a_packed_folder_alone_refuses_keys_of_training(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    composed = compose(str(tmp_path), ["optimizer.lr=0.1"])
    with pytest.raises(ConfigError, match=r"`optimizer\.lr=0\.1` has no effect: .* It belongs to: run, train"):
        refuse_unread_keys(composed.config, composed.origins, composed.target, "generate", READS)
    composed = compose(str(tmp_path), ["data.path=other.txt"])
    with pytest.raises(ConfigError, match=r"`data\.path=.*Other text is measured .*`evaluate\.texts=\[FILE\]`"):
        refuse_unread_keys(composed.config, composed.origins, composed.target, "evaluate", READS)


def test_a_run_that_is_to_be_measured_on_other_text_is_pointed_to_the_key_that_does(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), "data.context_tokens=64"]) == 2
    assert "`bitnet-train evaluate RUN evaluate.texts=[FILE]`" in capsys.readouterr().err
