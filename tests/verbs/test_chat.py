"""`bitnet-train chat` through pipes: a line is a question, and answers alone come out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bitnet_train.config.compose import compose, to_yaml

WORDS = ["chat.answer_tokens=5"]


def chat(*words: str, said: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
    """Run a chat to its end."""
    command = [sys.executable, "-m", "bitnet_train", "chat", *words, *WORDS]
    done = subprocess.run(command, input=said, capture_output=True, timeout=240)
    assert done.returncode == code, done.stderr.decode()
    return done


def test_answers_come_out_and_all_else_goes_to_stderr(pretrained_folder: Path) -> None:
    done = chat(str(pretrained_folder), "--json", said=b"def f(x):\n/params temperature=0.5 seed=3\nand?\n/exit\nno\n")
    facts = json.loads(done.stdout)
    assert [message["role"] for message in facts["messages"]] == ["user", "assistant", "user", "assistant"]
    assert (facts["engine"], facts["refused"], facts["passed"], facts["context_tokens"]) == ("native", 0, True, 512)
    assert [answer["num_tokens"] for answer in facts["answers"]] == [5, 5]
    plain = chat(str(pretrained_folder), said=b"def f(x):\n/params temperature=0.5 seed=3\nand?\n")
    assert plain.stdout.decode() == "".join(f"{answer['text']}\n" for answer in facts["answers"])
    assert b"2 tokens" not in plain.stdout
    assert plain.stderr.count(b"5 tokens, ") == 2
    assert b"\x1b" not in plain.stdout + plain.stderr


def test_a_quiet_chat_says_its_answers_alone(pretrained_folder: Path) -> None:
    done = chat(str(pretrained_folder), "--quiet", said=b"def f(x):\n/params\n")
    assert done.stdout.count(b"\n") >= 1
    assert done.stderr == b""


def test_what_cannot_be_answered_fails_at_the_end_and_stops_nothing(pretrained_folder: Path) -> None:
    said = b"\xff\xfe\n/nope\n" + b"x" * 10_000_000 + b"\n/params max_new_tokens=2\ndef f(x):\n"
    done = chat(str(pretrained_folder), said=said, code=1)
    told = done.stderr.decode()
    assert "Line 1 is not UTF-8: byte 0xff at position 0. The message was not sent." in told
    assert "There is no command `/nope`" in told
    assert "Line 3 has more than 4,000,000 bytes" in told
    assert "2 tokens" in told
    assert "unexpected" not in told


def test_an_empty_input_is_an_empty_chat(pretrained_folder: Path) -> None:
    assert chat(str(pretrained_folder), "--quiet").stdout == b""


@pytest.mark.slow
def test_the_bundled_model_is_talked_to_by_its_name_and_a_run_beside_its_original(
    pretrained_folder: Path, tmp_path: Path
) -> None:
    assert b"5 tokens" in chat("tiny", said=b"hi\n").stderr
    (tmp_path / "artefact").symlink_to(pretrained_folder)
    (tmp_path / "config.yaml").write_text(to_yaml(compose("quickstart", ["model.source=tiny"]).config))
    done = chat(str(tmp_path), "--beside", said=b"def f(x):\n")
    assert done.stdout.startswith(b"1-bit:\n")
    assert b"\noriginal:\n" in done.stdout
    assert b"1-bit, 5 tokens" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artefact", "config.yaml"]


def test_a_conversation_goes_on_from_a_file(pretrained_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text(json.dumps([{"role": "system", "content": "Be brief."}]))
    facts = json.loads(
        chat(str(pretrained_folder), f"chat.conversation={tmp_path / 'kept.json'}", "--json", said=b"hi\n").stdout
    )
    assert facts["messages"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "works on a run or artefact directory, GGUF file, Hugging Face folder, or tiny; none is given"),
        (["quickstart"], 2, "`quickstart` names a recipe instead"),
        (["tiny", "--beside"], 2, "`--beside` needs the original, and only a run knows its own"),
        (["tiny", "chat.against=tiny"], 2, "Add `--beside`, or `chat.beside=true`"),
        (["tiny", "chat.conversation=/nowhere.json"], 1, "there is no such file"),
        (["tiny", "chat.when_full=shift"], 2, "Allowed: drop, refuse"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_loaded(words: list[str], code: int, said: str) -> None:
    done = chat(*words, said=b"hi\n", code=code)
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
