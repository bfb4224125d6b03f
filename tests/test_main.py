"""The command line, mostly as a real process: exit codes, what goes to stdout and stderr, help, browsing, doctor."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from bitnet_train import __version__
from bitnet_train.__main__ import main
from bitnet_train.cli.arguments import read_call
from bitnet_train.config import Config
from bitnet_train.config.compose import compose, to_dict, to_yaml
from bitnet_train.config.layout import groups, recipes
from bitnet_train.errors import TrainingError
from bitnet_train.verbs import VERBS

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "BITNET_DEBUG"}


def bitnet_train(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bitnet_train", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT | environment,
        timeout=120,
    )


def unfolded(text: str) -> str:
    """Return `text` as one line with one space between words, commands without the backslashes they are folded at."""
    return " ".join(text.replace(" \\\n", "\n").split())


def saved_run(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(compose("quickstart").config))
    return str(folder)


def test_the_verbs_are_those_the_product_promises() -> None:
    promised = (
        "run train sweep convert sensitivity reconstruct merge export import validate evaluate generate serve chat "
    )
    promised += "playground bench report ls show cp doctor"
    assert list(VERBS) == promised.split()


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS.values() if verb.is_stage])
def test_every_stage_verb_has_its_function(verb: str) -> None:
    row = VERBS[verb]
    assert callable(getattr(import_module(f"bitnet_train.verbs.{row.function}"), row.function))


@pytest.mark.parametrize("name", VERBS)
def test_help_of_a_verb_says_what_it_does_and_gives_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = unfolded(capsys.readouterr().out)
    assert f"bitnet-train {VERBS[name].examples[0]}" in text
    assert VERBS[name].summary[1:] in text


@pytest.mark.parametrize("name", VERBS)
def test_the_examples_of_a_verb_are_read_as_they_stand(name: str) -> None:
    for example in VERBS[name].examples:
        words = [word.strip('"') for word in example.split(" ")] if '"' not in example else [name]
        assert read_call(words).verb.name == name


def test_help_and_version_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = unfolded(capsys.readouterr().out)
    assert "bitnet-train run quickstart" in text
    assert all(f" {verb.name} {verb.summary}" in text for verb in VERBS.values())
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bitnet-train {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [["--help"], ["ls"], ["ls", "recipes"], ["show", "--keys"], ["doctor"], *([verb, "--help"] for verb in VERBS)],
    ids=" ".join,
)
def test_what_helps_to_begin_fits_into_80_columns(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    too_long = [line for line in text.splitlines() if len(line) > 80 and " " in line.strip()]
    assert text.strip()
    assert too_long == []


def test_no_verb_at_all_prints_the_help_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "verbs:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["runn"], "Did you mean `run`"),
        (["run", "quickstrat"], "Did you mean `quickstart`"),
        (["run", "quickstart", "trainer.max_step=3"], "Did you mean `trainer.max_steps`"),
        (["run", "quickstart", "weight=ternary_rw"], "Did you mean `ternary_row`"),
        (["run", "quickstart", "extra", "words"], "not `extra`"),
        (["export", "quickstart"], "works on a run or artefact directory; `quickstart` names a recipe instead"),
        (["merge", "quickstart"], "works on a run directory; `quickstart` names a recipe instead"),
        (["validate"], "works on a run or artefact directory, export, or GGUF file; none is given"),
        (["ls", "wieght"], "Did you mean `weight`"),
        (["doctor", "quickstart"], "takes no words"),
        (["train", "quickstart", "--dry"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_exits_2_with_one_line_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr()
    assert part in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["no_such_thing", "x" * 300], ids=["unknown", "longer than a file name may be"])
@pytest.mark.parametrize("name", VERBS)
def test_a_word_that_names_nothing_is_wrong_usage_of_every_verb(
    name: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, word]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ConfigError: ")
    assert word[:100] in said


def test_an_error_is_a_json_document_too(tmp_path: Path) -> None:
    done = bitnet_train("show", "quickstart", "weight.nam=x", "--json", cwd=tmp_path)
    assert done.returncode == 2
    facts = json.loads(done.stdout)
    assert facts["passed"] is False
    assert facts["error"]["type"] == "ConfigError"
    assert "Did you mean `weight.name`" in facts["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["ls"], ["ls", "weight"], ["show", "quickstart"], ["show", "--keys"]])
def test_json_prints_one_document_on_stdout_and_the_text_on_stderr(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, has_text in (["--json"], True), (["--json", "--quiet"], False):
        assert main([*words, *flags]) == 0
        captured = capsys.readouterr()
        assert isinstance(json.loads(captured.out), dict)
        assert bool(captured.err.strip()) == has_text


def test_ls_lists_recipes_choices_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(saved_run(tmp_path / "quickstart" / "a"))
    (run / "facts").mkdir()
    (run / "facts" / "train.json").write_text("{}")
    assert main(["ls", f"run.root={tmp_path}"]) == 0
    text = capsys.readouterr().out
    assert [name for name in (*recipes(), *groups(), str(run), "binary_row") if name not in text] == []
    assert main(["ls", "runs", f"run.root={tmp_path}", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out) == {"runs": [{"name": str(run), "what": "train"}]}


def test_ls_shows_what_a_finished_run_came_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(saved_run(tmp_path / "quickstart" / "a"))
    (run / "facts").mkdir()
    shutil.copy(recipes()["quickstart"].parent / "results" / "quickstart.json", run / "facts" / "run.json")
    kept = json.loads((run / "facts" / "run.json").read_text())
    assert main(["ls", "runs", f"run.root={tmp_path}"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"{kept['perplexity']['ratio']:.2f}x perplexity" in text
    assert f"validation {kept['validation']}" in text


@pytest.mark.slow
def test_show_prints_yaml_that_parses_to_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["quickstart", "weight=ternary_row", 'generate.prompt=a: "b" # c']
    assert main(["show", *words]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == to_dict(compose(words[0], words[1:]).config)
    assert "  name: ternary  # configs/weight/ternary_row.yaml" in text
    assert "# command line" in text
    assert "# recipes/quickstart.yaml" in text


def test_show_never_prints_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    target = "logger.custom={_target_:lightning.pytorch.loggers.CometLogger,api_key:abc123secret}"
    assert main(["show", "quickstart", "logger.kind=custom", target]) == 0
    assert main(["show", "quickstart", "logger.kind=custom", target, "--json"]) == 0
    captured = capsys.readouterr()
    assert "abc123secret" not in captured.out + captured.err
    assert "[redacted]" in captured.out


def test_a_copied_recipe_composes_to_the_same_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["cp", "quickstart"]) == 0
    assert main(["cp", "quickstart", "mine.yaml"]) == 0
    original = to_dict(compose("quickstart").config)
    assert to_dict(compose("quickstart.yaml").config) == original
    assert to_dict(compose("mine.yaml").config) == original | {"recipe": "mine"}
    (tmp_path / "mine.yaml").write_text("kept")
    assert main(["cp", "quickstart", "mine.yaml"]) == 2
    assert (tmp_path / "mine.yaml").read_text() == "kept"
    assert "exists already" in capsys.readouterr().err


def test_cp_of_a_run_gives_its_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = saved_run(tmp_path / "run")
    assert main(["cp", run, str(tmp_path / "again.yaml")]) == 0
    assert to_dict(compose(str(tmp_path / "again.yaml")).config)["trainer"]["resume"] == "never"


def test_doctor_checks_and_exits_by_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json", "--quiet"])
    facts = json.loads(capsys.readouterr().out)
    assert code == (0 if facts["passed"] else 1)
    assert facts["passed"] == all(check["state"] != "broken" for check in facts["checks"])
    names = {check["name"] for check in facts["checks"]}
    assert {"python", "torch", "cpu", "kernels", "extension", "wandb", "disk", "gpu", "tiny model"} <= names


@pytest.mark.slow
def test_doctor_says_what_is_broken_and_exits_1(tmp_path: Path) -> None:
    done = bitnet_train("doctor", cwd=tmp_path, BITNET_TRAIN_ISA="abacus")
    assert done.returncode == 1
    assert any(line.startswith("broken") and "abacus" in line for line in done.stdout.splitlines())


def answer(monkeypatch: pytest.MonkeyPatch, verb: str, stage: object) -> None:
    monkeypatch.setattr(f"bitnet_train.verbs.{verb}.{verb}", stage)


def test_a_stage_gets_the_flags_and_its_facts_decide_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(config: Config) -> dict[str, object]:
        print("text for people")
        return {"passed": config.dry_run and config.quiet, "steps": config.trainer.max_steps}

    answer(monkeypatch, "train", train)
    assert main(["train", "--dry-run", "quickstart", "--quiet", "max_steps=3", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"passed": True, "steps": 3}
    assert captured.err == "text for people\n"
    assert main(["train", "quickstart"]) == 1


def test_an_expected_failure_exits_1_with_its_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def merge(config: Config) -> dict[str, object]:
        raise TrainingError("the loss is not finite")

    answer(monkeypatch, "convert", merge)
    assert main(["convert", "quickstart"]) == 1
    assert capsys.readouterr().err == "TrainingError: the loss is not finite\n"


def test_an_unexpected_failure_keeps_its_traceback_in_the_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def merge(config: Config) -> dict[str, object]:
        raise RuntimeError("something odd")

    monkeypatch.delenv("BITNET_DEBUG", raising=False)
    answer(monkeypatch, "merge", merge)
    run = saved_run(tmp_path / "run")
    assert main(["merge", run]) == 1
    text = capsys.readouterr().err
    assert text.startswith("RuntimeError: something odd\n")
    assert "Traceback" not in text
    assert "in merge" in (tmp_path / "run" / "traceback.txt").read_text()
    monkeypatch.setenv("BITNET_DEBUG", "1")
    assert main(["merge", run]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_the_code_a_shell_expects(
    monkeypatch: pytest.MonkeyPatch, signum: signal.Signals, code: int
) -> None:
    def validate(config: Config) -> dict[str, object]:
        signal.raise_signal(signum)
        return {}

    before = signal.getsignal(signal.SIGTERM)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs behind
    answer(monkeypatch, "convert", validate)
    assert main(["convert", "quickstart"]) == code
    signal.signal(signal.SIGINT, interrupt)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m bitnet_train show --keys | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "recipe: none\n"
    assert done.stderr == ""


def test_bitnet_debug_switches_telemetry_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    answer(monkeypatch, "convert", lambda config: {"seen": seen.append(config.debug.enabled)})
    for value in ("0", "1"):
        monkeypatch.setenv("BITNET_DEBUG", value)
        assert main(["convert", "quickstart"]) == 0
    assert seen == [False, True]


def test_threads_of_openmp_wait_awake_for_a_moment_only_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert main(["ls", "--quiet"]) == 0
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert main(["ls", "--quiet"]) == 0
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert main(["ls", "--quiet"]) == 0
    assert os.environ["GOMP_SPINCOUNT"] == "20000"
