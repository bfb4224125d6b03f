"""The engines behind a chat."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.exporters.gguf import MODEL_NAME
from bitnet_train.exporters.registry import export_as
from bitnet_train.packed import export_packed
from bitnet_train.runtime.generation import GenerationOptions
from bitnet_train.serve.chat.speaker import Answer, Speaker, interruptible
from bitnet_train.serve.chat.speakers import Opening, open_packed, open_source

CHAT = [{"role": "user", "content": "def f(x):"}]
OPTIONS = GenerationOptions(max_new_tokens=8)


def answer(speaker: Speaker, options: GenerationOptions = OPTIONS, stop_after: int = 1 << 30) -> Answer:
    """Answer the chat; stop after so many tokens."""
    asked = iter(range(stop_after, -1, -1))
    pieces: list[str] = []
    made = speaker.answer(CHAT, options, pieces.append, lambda: next(asked) == 1)
    assert "".join(pieces) == made.text
    return made


@pytest.fixture(scope="module")
def native(pretrained_folder: Path) -> Speaker:
    return open_packed(pretrained_folder, "1-bit", Opening())


@pytest.fixture(scope="module")
def by_torch(pretrained_folder: Path) -> Speaker:
    return open_source(str(pretrained_folder), "1-bit", Opening(engine="hf"))


def test_both_engines_answer_a_packed_folder_alike(native: Speaker, by_torch: Speaker) -> None:
    assert (native.engine, by_torch.engine) == ("native", "torch")
    assert native.prompt(CHAT) == by_torch.prompt(CHAT)
    assert native.context == by_torch.context == 512
    one, other = answer(native), answer(by_torch)
    assert (one.text, one.num_tokens, one.ending) == (other.text, other.num_tokens, other.ending)
    assert one.num_tokens == 8
    assert one.ending == "length"
    assert one.tokens_per_s is not None


@pytest.mark.parametrize("engine", ["native", "by_torch"])
def test_an_answer_is_stopped_at_a_token(engine: str, request: pytest.FixtureRequest) -> None:
    speaker: Speaker = request.getfixturevalue(engine)
    made = answer(speaker, stop_after=3)
    assert (made.ending, made.num_tokens) == ("interrupted", 3)


@pytest.mark.parametrize("engine", ["native", "by_torch"])
def test_a_stop_string_ends_an_answer(engine: str, request: pytest.FixtureRequest) -> None:
    speaker: Speaker = request.getfixturevalue(engine)
    whole = answer(speaker).text
    made = answer(speaker, GenerationOptions(max_new_tokens=8, stop=(whole[3:6],)))
    assert (made.ending, made.text) == ("stop", whole[: whole.index(whole[3:6])])


def test_a_model_without_a_chat_template_is_refused_with_the_way_out(make_trained, byte_tokenizer, tmp_path) -> None:
    tokenizer = deepcopy(byte_tokenizer)
    tokenizer.chat_template = None
    export_packed(make_trained(), tokenizer, tmp_path / "out", {})
    for engine in ("native", "hf"):
        with pytest.raises(DataError, match=r"1-bit has no chat template, .* `bitnet-train generate` continues plain"):
            open_packed(tmp_path / "out", "1-bit", Opening(engine=engine))


def test_the_variables_of_the_template_are_given(make_trained, byte_tokenizer, tmp_path) -> None:
    tokenizer = deepcopy(byte_tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] }}{{ mood }}"
    export_packed(make_trained(), tokenizer, tmp_path / "out", {})
    speaker = open_packed(tmp_path / "out", "1-bit", Opening(variables={"mood": "!"}))
    assert speaker.decode(speaker.prompt(CHAT)) == "def f(x):!"


def test_the_native_engine_where_it_cannot_be_is_wrong_usage(make_trained, byte_tokenizer, tmp_path) -> None:
    export_packed(make_trained("gpt2"), byte_tokenizer, tmp_path / "out", {})
    with pytest.raises(ConfigError, match=r"`generate.engine=native`: .* does not fit: GPT2LMHeadModel"):
        open_packed(tmp_path / "out", "1-bit", Opening(engine="native"))
    with pytest.raises(ConfigError, match=r"`generate.engine=native` computes packed folders, and tiny is none"):
        open_source("tiny", "1-bit", Opening(engine="native"))


@pytest.mark.slow
def test_an_export_for_llama_cpp_is_answered_from_its_file(pretrained_folder: Path, tmp_path: Path) -> None:
    export_as("gguf", pretrained_folder, tmp_path / "out")
    for source in (tmp_path / "out", tmp_path / "out" / MODEL_NAME):
        speaker = open_source(str(source), "1-bit", Opening())
        assert speaker.engine == "torch"
        assert answer(speaker).num_tokens == 8


def test_control_c_is_a_question_in_a_block_and_an_interrupt_the_second_time() -> None:
    import os
    import signal

    before = signal.getsignal(signal.SIGINT)
    with interruptible() as is_stopped:
        assert not is_stopped()
        os.kill(os.getpid(), signal.SIGINT)
        assert is_stopped()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
