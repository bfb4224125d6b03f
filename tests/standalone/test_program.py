"""`bitnet-run`: what it writes, where, and with what status."""

from __future__ import annotations

import subprocess

import pytest

import bitnet_train as bt
from tests.fixtures.native_folders import IDS

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.toolchain]


@pytest.fixture
def run(program):
    def call(*words, **how):
        return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False, **how)

    return call


def test_ids_come_out_as_ids(run, native):
    folder = native()
    done = run(folder, "--ids", " ".join(map(str, IDS)), "-n", 12, "--threads", 1)
    expected = bt.NativeModel.load(folder, verify=False).generate_ids(IDS, 12)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(map(int, done.stdout.split())) == expected


@pytest.mark.parametrize("how", [{}, {"temperature": 1.0, "seed": 5, "top_k": 50, "top_p": 0.9}])
def test_a_prompt_is_continued_as_python_does(run, bundled, how):
    words = [word for key, value in how.items() for word in (f"--{key.replace('_', '-')}", value)]
    done = run(bundled, "Once upon a time", "-n", 24, *words)
    expected = bt.NativeModel.load(bundled, verify=False).generate("Once upon a time", max_new_tokens=24, **how).text
    assert (done.returncode, done.stdout) == (0, expected + "\n")


def test_stats_are_said_on_stderr(run, bundled):
    done = run(bundled, "Once", "-n", 4, "--stats", "--cache", "int8")
    said = dict(line.split() for line in done.stderr.splitlines())
    assert list(said) == ["load_s", "prompt_tokens", "prompt_s", "new_tokens", "decode_tokens_per_s", "peak_rss_mb"]
    assert said["new_tokens"] == "4"


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ((), 2, "Name a packed folder"),
        (("FOLDER",), 2, "Give a prompt in quotes, or token ids"),
        (("FOLDER", "a", "b"), 2, "put the prompt in quotes"),
        (("FOLDER", "a", "--ids", "1"), 2, "not both"),
        (("FOLDER", "a", "-n", "-3"), 2, "`-n` takes a whole number up to 16777216, not '-3'"),
        (("FOLDER", "a", "--cache", "int3"), 2, "takes float32 or int8, not 'int3'"),
        (("FOLDER", "a", "--warp"), 2, "`--warp` is not known. `bitnet-run --help`"),
        (("FOLDER", "a", "--seed"), 2, "`--seed` takes a value"),
        (("FOLDER", "a", "-n", "100000"), 1, "positions"),
        (("FOLDER", ""), 1, "no token"),
        (("FOLDER", "--ids", "999999"), 1, "token 999999 is not in the vocabulary"),
        (("/nowhere", "a"), 1, "/nowhere is no folder"),
    ],
)
def test_what_is_wrong_is_said_on_stderr_with_a_status(run, bundled, words, status, told):
    done = run(*(bundled if word == "FOLDER" else word for word in words))
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("bitnet-run: ")
    assert told in done.stderr


def test_text_without_a_tokenizer_is_refused_and_ids_go(run, native):
    folder = native(tokenizer=False)
    done = run(folder, "Hello")
    assert done.returncode == 1
    assert "without a tokenizer.json. Give token ids (`--ids`)" in done.stderr
    assert run(folder, "--ids", "1,2", "-n", 2).returncode == 0


def test_help_and_version(run):
    assert "--temperature" in run("--help").stdout
    assert run("--version").stdout == f"bitnet-run {bt.__version__}\n"
