"""`bitnet-train chat` in a real pseudo-terminal, with the bundled model in 1 bit."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.config.compose import compose, to_yaml
from tests.fixtures.terminal import Terminal

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")]

ALT_ENTER, CONTROL_C, CONTROL_D, UP = "\x1b\r", "\x03", "\x04", "\x1b[A"
LONG = "/params max_new_tokens=480"


def chat(folder: Path, *words: str, **terminal: Any) -> Terminal:
    """Start a chat and wait until it asks."""
    started = Terminal(["chat", str(folder), "chat.answer_tokens=5", *words], **terminal)
    started.wait_for("/help lists commands")
    started.wait_for(">")
    return started


def ask(terminal: Terminal, text: str, said: str = "5 tokens, ") -> str:
    """Type a line, wait for what is said to it, and for the next prompt; return what was said."""
    terminal.type(f"{text}\r")
    found = terminal.wait_for(said)
    terminal.wait_for(">")
    return found


def saved(terminal: Terminal, path: Path) -> list[dict[str, Any]]:
    """Return the conversation so far."""
    ask(terminal, f"/save {path}", "messages are in")
    return json.loads(path.read_text())


def test_a_conversation_with_several_lines_is_saved_and_left(pretrained_folder: Path, tmp_path: Path) -> None:
    with chat(pretrained_folder) as terminal:
        assert "\n" in ask(terminal, "def f(x):")
        ask(terminal, f"one{ALT_ENTER}two\\\rthree")
        ask(terminal, '"""\rfour\r/exit\r"""')
        ask(terminal, "/system Be brief.", "The system message is set.")
        kept = saved(terminal, tmp_path / "chat.json")
        assert [message["content"] for message in kept if message["role"] != "assistant"] == [
            "Be brief.",
            "def f(x):",
            "one\ntwo\nthree",
            "four\n/exit",
        ]
        terminal.type(CONTROL_D)
        assert terminal.ends() == 0
        assert terminal.is_sane


def test_control_c_stops_an_answer_and_not_the_program(pretrained_folder: Path, tmp_path: Path) -> None:
    with chat(pretrained_folder) as terminal:
        ask(terminal, LONG, "temperature=0.0")
        terminal.type("def f(x):\r")
        terminal.wait_for_answer(20)
        terminal.type(CONTROL_C)
        line = terminal.wait_for("stopped")
        tokens = re.search(r"(\d+) tokens", line)
        assert tokens is not None
        assert 0 < int(tokens[1]) < 480
        terminal.wait_for(">")
        kept = saved(terminal, tmp_path / "chat.json")
        assert [message["role"] for message in kept] == ["user", "assistant"]
        terminal.type(f"half a line{CONTROL_C}")
        terminal.wait_for("(Ctrl-D or /exit leaves.)")
        terminal.wait_for(">")
        terminal.type("/exit\r")
        assert terminal.ends() == 0


def test_what_is_typed_while_an_answer_comes_is_the_next_message(pretrained_folder: Path, tmp_path: Path) -> None:
    with chat(pretrained_folder) as terminal:
        terminal.type(f"def f(x):\rnext\r/save {tmp_path / 'chat.json'}\r")
        terminal.wait_for("4 messages are in")
        assert json.loads((tmp_path / "chat.json").read_text())[2]["content"] == "next"


def test_a_run_keeps_what_was_typed_and_brings_it_back(pretrained_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(pretrained_folder, tmp_path / "artefact")
    (tmp_path / "config.yaml").write_text(to_yaml(compose("quickstart", ["model.source=tiny"]).config))
    with chat(tmp_path) as terminal:
        ask(terminal, "/params seed=7", "stop=[]")
        terminal.type(CONTROL_D)
        assert terminal.ends() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artefact", "chat_history", "config.yaml"]
    with chat(tmp_path) as terminal:
        terminal.type(UP)
        terminal.wait_for("seed=7")
        terminal.type("1\r")
        terminal.wait_for("seed=71")


def test_controls_in_a_loaded_chat_never_reach_the_terminal(pretrained_folder: Path, tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[31mred\x9b5m"
    content = [{"role": "system", "content": evil}, {"role": "user", "content": evil}]
    (tmp_path / "evil.json").write_text(json.dumps(content))
    with chat(pretrained_folder) as terminal:
        ask(terminal, f"/load {tmp_path / 'evil.json'}", "2 messages are loaded")
        ask(terminal, "/system", "The system message: \\x1b]0;owned\\x07\\x1b[31mred\\x9b5m")
        ask(terminal, "/undo", "Forgotten: \\x1b]0;owned")
        assert b"\x1b]0;owned" not in terminal.raw
        assert b"\x1b[31m" not in terminal.raw


def test_a_paste_of_10_mb_is_left_out_and_one_of_a_few_lines_is_taken_as_it_is(
    pretrained_folder: Path, tmp_path: Path
) -> None:
    with chat(pretrained_folder) as terminal:
        terminal.type(b"\x1b[200~" + b"x" * 10_000_000 + b"\x1b[201~")
        terminal.wait_for("More than 1,000,000 characters were pasted: left out.", seconds=240)
        terminal.wait_for(">")
        ask(terminal, "\x1b[200~a \\\r\n/exit\r\nb\x1b[201~")
        assert saved(terminal, tmp_path / "chat.json")[0]["content"] == "a \\\n/exit\nb"


def test_bytes_that_are_no_text_are_told(pretrained_folder: Path) -> None:
    with chat(pretrained_folder) as terminal:
        terminal.type(b"caf\xe9 \r")
        terminal.wait_for("bytes that are not UTF-8. Nothing was sent")
        terminal.wait_for(">")
        terminal.type("/exit\r")
        assert terminal.ends() == 0


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_without_colour_no_line_of_the_chat_is_styled(pretrained_folder: Path, environment: dict[str, str]) -> None:
    with chat(pretrained_folder, environment=environment) as terminal:
        ask(terminal, "def f(x):")
        terminal.type("/exit\r")
        assert terminal.ends() == 0
        assert b"\x1b[2m" not in terminal.raw
        assert not re.search(rb"\x1b\[[0-9;]*(3[0-8]|9[0-7]|4[0-8])[0-9;]*m", terminal.raw)


def test_a_narrow_terminal_that_is_resized_goes_on(pretrained_folder: Path) -> None:
    with chat(pretrained_folder, columns=20, lines=6) as terminal:
        terminal.type("a question that is longer than the terminal is wide\r")
        terminal.wait_for("tokens")
        terminal.wait_for(">")
        terminal.type("half ")
        terminal.resize(90, 20)
        os.kill(terminal.process.pid, signal.SIGWINCH)
        terminal.type("and half\r")
        terminal.wait_for("5 tokens, ")
        terminal.resize(3, 2)
        os.kill(terminal.process.pid, signal.SIGWINCH)
        terminal.type("/exit\r")
        assert terminal.ends() == 0


def test_two_models_stand_in_columns_where_there_is_room_and_one_below_the_other_where_not(
    pretrained_folder: Path,
) -> None:
    words = ["--beside", f"chat.against={pretrained_folder}"]
    with chat(pretrained_folder, *words, columns=100) as terminal:
        terminal.type("def f(x):\r")
        terminal.wait_for("Both wrote the same.")
        assert re.search(r"1-bit {30,}original", terminal.plain)
    with chat(pretrained_folder, *words, columns=60) as terminal:
        terminal.type("def f(x):\r")
        terminal.wait_for("Both wrote the same.")
        assert "1-bit:\n" in terminal.plain
        assert "original:\n" in terminal.plain


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_chat_that_is_ended_from_outside_leaves_the_terminal_as_it_was(
    pretrained_folder: Path, number: signal.Signals
) -> None:
    with chat(pretrained_folder) as terminal:
        time.sleep(0.5)
        os.kill(terminal.process.pid, number)
        assert terminal.ends() in (128 + number, -number)
        assert terminal.is_sane or number == signal.SIGHUP  # who hangs up has no terminal any more
