"""What a person types or pipes is what the model reads, in every terminal; other tools' habits get an answer."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitnet_train.__main__ import compose_call, main
from bitnet_train.cli.arguments import read_call
from bitnet_train.cli.typed_text import decoded, read_prompt
from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.errors import ConfigError


@pytest.fixture
def run_folder(tmp_path: Path) -> str:
    (tmp_path / "config.yaml").write_text(to_yaml(compose("quickstart").config))
    (tmp_path / "manifest.json").write_text("{}")
    return str(tmp_path)


@pytest.mark.parametrize(
    "text", ["def f(", "'a' + 'b'", '"all of it"', "a\nb\\n", "null", "", "${x}", "-5 + 3", "a b=c"]
)
def test_a_prompt_is_the_second_word_or_a_flag_and_stands_as_typed(run_folder: str, text: str) -> None:
    for words in ([f"--prompt={text}"], ["--", text] if text.startswith("-") else [text]):
        call = read_call(["generate", run_folder, *words])
        assert compose_call(call).generate.prompt == text
    assert compose_call(read_call(["generate", "--prompt", "x", run_folder, "chat=true"])).generate.chat


def test_without_one_the_prompt_is_that_of_the_configuration(run_folder: str) -> None:
    assert (
        compose_call(read_call(["generate", run_folder])).generate.prompt
        == compose("quickstart").config.generate.prompt
    )
    assert compose_call(read_call(["generate", run_folder, "generate.prompt=x"])).generate.prompt == "x"


@pytest.mark.parametrize("words", [["a", "prompt=b"], ["a", "--prompt", "b"], ["--prompt=a", "generate.prompt=b"]])
def test_a_prompt_given_twice_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="got its prompt twice"):
        read_call(["generate", "runs/mine", *words])


class _Piped:
    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


@pytest.mark.parametrize(
    ("content", "text"), [(b"two\nlines\n", "two\nlines"), (b"\xef\xbb\xbfx\r\n", "x"), ("é".encode(), "é"), (b"", "")]
)
def test_a_dash_reads_standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", _Piped(content))
    assert read_prompt("-") == text


def test_standard_input_that_is_not_utf8_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Piped(b"caf\xe9"))
    with pytest.raises(ConfigError, match="byte 0xe9 at position 3"):
        read_prompt("-")


def bitnet_train(*words: bytes, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable.encode(), b"-m", b"bitnet_train", *words]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    return subprocess.run(command, capture_output=True, cwd=cwd, env=kept | environment, timeout=240)


ASCII = {"LANG": "C", "PYTHONIOENCODING": "ascii"}
NO_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow
@pytest.mark.parametrize("environment", [ASCII, NO_UTF8], ids=["an ASCII stream", "an ASCII locale"])
def test_a_terminal_that_knows_few_letters_gets_escapes(tmp_path: Path, environment: dict[str, str]) -> None:
    word = "generate.prompt=é→😀".encode()
    done = bitnet_train(b"show", b"quickstart", word, cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert rb"prompt: \xe9\u2192\U0001f600" in done.stdout
    done = bitnet_train(b"show", b"quickstart", word, b"--json", b"--quiet", cwd=tmp_path, **environment)
    assert json.loads(done.stdout)["config"]["generate"]["prompt"] == "é→😀"


@pytest.mark.slow
def test_a_run_is_saved_in_utf8_whatever_the_locale(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from bitnet_train.run.directory import RunDirectory; "
    code += "RunDirectory(Path('run')).create('a: \\xe9\\u2192')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=os.environ | NO_UTF8, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "config.yaml").read_bytes().endswith("\na: é→".encode())


@pytest.mark.slow
def test_an_error_is_readable_on_a_terminal_that_knows_few_letters(tmp_path: Path) -> None:
    done = bitnet_train(b"run", "quickst→rt".encode(), cwd=tmp_path, **ASCII)
    assert done.returncode == 2
    assert rb"`quickst\u2192rt` is neither a recipe" in done.stderr
    assert b"Traceback" not in done.stderr


def test_bytes_that_are_no_text_are_wrong_usage(tmp_path: Path) -> None:
    done = bitnet_train(b"show", b"quickstart", b"generate.prompt=caf\xe9", cwd=tmp_path)
    assert done.returncode == 2
    assert rb"`generate.prompt=caf\udce9` (command line) is not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def test_words_that_are_text_stay_as_they_are() -> None:
    assert decoded(["é→😀", "a\nb", "\x7f", ""]) == ["é→😀", "a\nb", "\x7f", ""]


@pytest.mark.parametrize(
    ("flag", "part"),
    [
        ("--max_steps", "That is the key `trainer.max_steps`"),
        ("--max-steps=3", "That is the key `trainer.max_steps`"),
        ("--trainer.max_steps=3", "That is the key `trainer.max_steps`"),
        ("--learning_rate", "That is `optimizer.lr` here"),
        ("--lr=3e-4", "That is `optimizer.lr` here"),
        ("--per-device-train-batch-size", "That is `trainer.micro_rows` here"),
        ("--output_dir=x", "That is `run.dir` here"),
    ],
)
def test_a_setting_written_as_a_flag_is_answered_with_its_key(
    flag: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "quickstart", flag, "1"]) == 2
    told = capsys.readouterr().err
    assert part in told
    assert "Settings are words without dashes: `bitnet-train train KEY=VALUE`" in told


def test_a_flag_of_another_verb_is_answered_with_it_and_words_after_it_are_not_blamed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "quickstart", "--dry-run", "model.source=tiny"]) == 2
    told = capsys.readouterr().err
    assert "`bitnet-train run` has no `--dry-run`" in told
    assert "bitnet-train train" in told
    assert "That is the key" not in told
