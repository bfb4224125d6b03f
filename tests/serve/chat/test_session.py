"""A conversation with the bundled model, 1-bit: commands, errors, the context, a second model beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.runtime.generation import GenerationOptions, Sampling
from bitnet_train.serve.chat.conversation import Conversation
from bitnet_train.serve.chat.screen import Screen
from bitnet_train.serve.chat.session import Session
from bitnet_train.serve.chat.speaker import Speaker, Watched
from bitnet_train.serve.chat.speakers import Opening, open_packed, open_source


class Lines:
    """Messages one after the other; an error among them is raised."""

    def __init__(self, *lines: str | BaseException) -> None:
        self._lines = iter(lines)

    def read(self) -> str:
        line = next(self._lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line


class Parrot(Speaker):
    """Says one text, a token a letter, whatever it is asked."""

    name, engine, context = "parrot", "none", 1000

    def __init__(self, text: str) -> None:
        self._text = text

    def prompt(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        return [0] * sum(len(message["content"]) for message in messages)

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(map(chr, token_ids))

    def go_on(self, prompt: list[int], sampling: Sampling, written: Watched) -> list[int]:
        made = [ord(letter) for letter in self._text[: sampling.max_new_tokens]]
        return made[: next((at for at, token_id in enumerate(made, 1) if written.push(token_id)), len(made))]


@pytest.fixture(scope="module")
def speaker(pretrained_folder: Path) -> Speaker:
    return open_packed(pretrained_folder, "1-bit", Opening())


def session(*speakers: Speaker, **options: Any) -> Session:
    return Session(speakers, Screen(StringIO(), StringIO()), GenerationOptions(chat=True, max_new_tokens=6, **options))


def answers(talk: Session) -> str:
    return talk.screen.out.getvalue()  # type: ignore[attr-defined]


def notes(talk: Session) -> str:
    return talk.screen.err.getvalue()  # type: ignore[attr-defined]


def roles(talk: Session) -> str:
    return " ".join(message["role"][0] for message in talk.conversation.messages)


def test_questions_are_answered_with_what_was_said_before(speaker: Speaker) -> None:
    talk = session(speaker)
    talk.run(Lines("def f(x):", "and then?"))
    assert roles(talk) == "u a u a"
    asked = [{"role": "user", "content": "def f(x):"}, talk.conversation.messages[1]]
    alone = speaker.answer([*asked, {"role": "user", "content": "and then?"}], talk.options, str, lambda: False)
    assert talk.conversation.messages[3]["content"] == alone.text
    assert answers(talk) == f"{talk.conversation.messages[1]['content']}\n{alone.text}\n"


def test_below_each_answer_stand_its_tokens_its_speed_and_the_context(speaker: Speaker) -> None:
    talk = session(speaker)
    talk.run(Lines("def f(x):"))
    used = len(speaker.prompt([{"role": "user", "content": "def f(x):"}])) + 6
    assert notes(talk).startswith("6 tokens, ")
    assert notes(talk).endswith(f" tokens/s, context {used} of 512, cut at max_new_tokens\n")


def test_commands_change_what_is_sent(speaker: Speaker) -> None:
    talk = session(speaker)
    talk.run(Lines("/system Be brief.", "one", "two", "/undo", "/system"))
    assert roles(talk) == "s u a"
    assert "The system message is set.\n" in notes(talk)
    assert "Forgotten: two\nThe system message: Be brief.\n" in notes(talk)
    talk.run(Lines("/reset", '/system ""'))
    assert talk.conversation.messages == []


def test_a_block_is_one_message_even_where_it_looks_like_a_command(speaker: Speaker) -> None:
    talk = session(speaker)
    talk.run(Lines('"""\n/exit\nplease\n"""', "//etc", "", "   "))
    assert [message["content"] for message in talk.conversation.turns[::2]] == ["/exit\nplease", "/etc"]


def test_an_answer_is_made_anew_with_another_seed_and_with_the_same_where_it_is_greedy(speaker: Speaker) -> None:
    talk = session(speaker, temperature=3.0)
    talk.run(Lines("def f(x):"))
    first = talk.conversation.turns[-1]
    talk.run(Lines("/regenerate"))
    second = talk.conversation.turns[-1]
    assert first != second
    talk.run(Lines("/reset", "def f(x):"))
    assert talk.conversation.turns[-1] == first
    talk.run(Lines("/params temperature=0", "/regenerate", "/regenerate"))
    assert notes(talk).count("The temperature is 0, so the answer is the same one") == 2
    assert roles(talk) == "u a"


def test_what_was_saved_is_loaded_and_goes_on(speaker: Speaker, tmp_path: Path) -> None:
    talk = session(speaker)
    talk.run(Lines("/system Be brief.", "def f(x):", f"/save {tmp_path / 'a chat.json'}"))
    kept = json.loads((tmp_path / "a chat.json").read_text())
    assert kept == talk.conversation.messages
    other = session(speaker)
    other.run(Lines("lost", f"/load {tmp_path / 'a chat.json'}"))
    assert other.conversation.messages == kept
    other.run(Lines("/save", "/load", "/load nowhere.json"))
    assert "`/save` needs the name of a file: `/save chat.json`" in notes(other)
    assert "`/load nowhere.json`: there is no such file" in notes(other)
    assert other.num_faults == 3


def test_a_loaded_question_that_waits_is_answered_when_asked_to(speaker: Speaker, tmp_path: Path) -> None:
    (tmp_path / "open.json").write_text(json.dumps([{"role": "user", "content": "def f(x):"}]))
    talk = session(speaker)
    talk.run(Lines(f"/load {tmp_path / 'open.json'}", "/regenerate"))
    assert "The last one waits for an answer: /regenerate." in notes(talk)
    assert roles(talk) == "u a"


@pytest.mark.parametrize("line", ["/nope", "/params heat=1", "/undo", "/regenerate", "/reset now", DataError("x")])
def test_an_error_is_told_and_the_conversation_goes_on(speaker: Speaker, line: str | DataError) -> None:
    talk = session(speaker)
    talk.run(Lines(line, "def f(x):"))
    assert talk.num_faults == 1
    assert roles(talk) == "u a"


def test_exit_leaves_and_control_c_while_typing_does_not(speaker: Speaker) -> None:
    talk = session(speaker)
    talk.run(Lines(KeyboardInterrupt(), "one", "/exit", "two"))
    assert roles(talk) == "u a"
    assert "(Ctrl-D or /exit leaves.)" in notes(talk)


def test_a_conversation_longer_than_the_context_forgets_its_oldest_questions_and_says_so(speaker: Speaker) -> None:
    talk = session(speaker)
    talk.run(Lines(*["word " * 60] * 10))
    assert talk.num_faults == 0
    assert roles(talk) == " ".join(["u a"] * 10)
    assert notes(talk).count("The context of 512 tokens is full: the oldest 2 messages are no longer sent.") >= 1
    assert all(made["num_prompt_tokens"] + made["num_tokens"] <= 512 for made in talk.answers)


def test_or_it_is_refused_as_told(speaker: Speaker) -> None:
    talk = session(speaker)
    talk.drop = False
    talk.run(Lines(*["word " * 60] * 10))
    assert talk.num_faults > 0
    assert "/reset begins anew" in notes(talk)
    assert len(talk.conversation.turns) == 2 * (10 - talk.num_faults)


def test_a_question_that_no_context_takes_is_not_sent(speaker: Speaker) -> None:
    talk = session(speaker)
    talk.run(Lines("one", "word " * 2000, "two"))
    assert "nothing is left for an answer. It was not sent" in notes(talk)
    assert [message["content"] for message in talk.conversation.turns[::2]] == ["one", "two"]


def test_a_template_that_refuses_a_conversation_takes_the_question_back(
    make_trained, byte_tokenizer, tmp_path: Path
) -> None:
    from copy import deepcopy

    from bitnet_train.packed import export_packed

    tokenizer = deepcopy(byte_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    export_packed(make_trained(), tokenizer, tmp_path / "out", {})
    talk = session(open_packed(tmp_path / "out", "1-bit", Opening()))
    talk.run(Lines("/system Be brief.", "hi", '/system ""', "hi"))
    assert "cannot be used: no system role" in notes(talk)
    assert roles(talk) == "u a"


def test_controls_in_an_answer_or_a_loaded_file_are_shown_and_not_sent_to_the_terminal(tmp_path: Path) -> None:
    talk = session(Parrot("\x1b[2J\x9b\r"))
    (tmp_path / "evil.json").write_text(json.dumps([{"role": "user", "content": "\x1b]52;c;aGk=\x07"}]))
    talk.run(Lines("hi", f"/load {tmp_path / 'evil.json'}", "/undo", "/system \x1b[1m", "/system"))
    assert not set("\x1b\x9b\r\x07") & set(answers(talk) + notes(talk))
    assert answers(talk).startswith("\\x1b[2J\\x9b\\x0d\n")
    assert "Forgotten: \\x1b]52;c;aGk=\\x07" in notes(talk)


def test_two_models_answer_the_same_and_the_place_where_they_part_is_marked() -> None:
    talk = Session(
        (Parrot("The fox runs."), Parrot("The fox sits.")), Screen(StringIO(), StringIO()), GenerationOptions()
    )
    talk.run(Lines("hi"))
    assert answers(talk) == "parrot:\nThe fox runs.\nparrot:\nThe fox »sits.\n"
    assert "They part after 2 words: parrot writes 'runs.', parrot writes 'sits.'." in notes(talk)
    assert [message["content"] for message in talk.conversation.messages] == ["hi", "The fox runs."]
    assert talk.answers[0]["parts_at"] == 8
    assert [made["text"] for made in talk.answers[0]["beside"]] == ["The fox sits."]


@pytest.mark.slow
def test_the_bundled_model_beside_its_1_bit_twin(speaker: Speaker) -> None:
    talk = session(speaker, open_source("tiny", "original", Opening()))
    talk.run(Lines("def f(x):", "and?"))
    assert len(talk.answers) == 2
    assert notes(talk).count("They part ") + notes(talk).count("Both wrote the same.") == 2
    assert "original, 6 tokens" in notes(talk)


def test_a_screen_that_is_quiet_shows_answers_and_errors_alone(speaker: Speaker) -> None:
    talk = session(speaker)
    talk.screen.quiet = True
    talk.run(Lines("/params", "def f(x):", "/nope"))
    assert notes(talk).startswith("There is no command")
    assert answers(talk) != ""


def test_parameters_hold_for_the_answers_that_follow(speaker: Speaker) -> None:
    talk = session(speaker)
    talk.run(Lines("/params max_new_tokens=3", "def f(x):"))
    assert talk.answers[0]["num_tokens"] == 3
    with pytest.raises(ConfigError):
        talk.take("/params max_new_tokens=-1")
    assert talk.options.max_new_tokens == 3


def test_a_conversation_may_begin_with_one_that_was_loaded(speaker: Speaker) -> None:
    talk = session(speaker)
    talk.conversation = Conversation.of([{"role": "system", "content": "Be brief."}])
    talk.run(Lines("hi"))
    assert roles(talk) == "s u a"
