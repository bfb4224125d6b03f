"""Text and chats in, text out: stop strings, streams, batches, messages."""

from __future__ import annotations

import threading

import pytest

from bitnet_train.errors import DataError
from bitnet_train.runtime.generate import generate
from bitnet_train.runtime.load import load, load_tokenizer
from bitnet_train.runtime.native.model import NativeModel

PROMPTS = ["def f(x):", "Once upon a time", "import os", "x"]


@pytest.fixture(scope="module")
def folder(make_folder):
    return make_folder()


@pytest.fixture(scope="module")
def native(folder):
    return NativeModel.load(folder, num_threads=1)


@pytest.fixture(scope="module")
def pretrained(pretrained_folder):
    return NativeModel.load(pretrained_folder, num_threads=1)


def test_a_batch_writes_what_each_prompt_writes_alone(native):
    for options in ({}, {"stop": ["e"]}, {"temperature": 1.0, "seed": 3}):
        together = native.generate(PROMPTS, max_new_tokens=12, **options)
        alone = [native.generate(prompt, max_new_tokens=12, **options) for prompt in PROMPTS]
        assert [made.token_ids for made in together] == [made.token_ids for made in alone]
        assert [made.text for made in together] == [made.text for made in alone]
    assert native.generate([], max_new_tokens=2) == []


def test_stop_strings_end_both_engines_alike(pretrained, pretrained_folder):
    reference, tokenizer = load(pretrained_folder), load_tokenizer(pretrained_folder)
    whole = pretrained.generate("def ", max_new_tokens=16)
    cut = whole.text[3:8]
    ours = pretrained.generate("def ", max_new_tokens=16, stop=["never", cut])
    theirs = generate(reference, tokenizer, "def ", max_new_tokens=16, stop=["never", cut])
    assert ours.text == theirs.text == whole.text[: whole.text.index(cut)]
    assert ours.token_ids == theirs.token_ids == whole.token_ids[: len(ours.token_ids)]
    assert len(ours.token_ids) < 16


def test_the_pieces_of_a_stream_make_up_the_text(pretrained):
    for options in ({}, {"temperature": 1.2, "seed": 5}, {"stop": ["e"]}):
        whole = pretrained.generate("Once", max_new_tokens=12, **options)
        assert "".join(pretrained.stream("Once", max_new_tokens=12, **options)) == whole.text
        pieces = []
        pretrained.generate("Once", max_new_tokens=12, **options, stream=pieces.append)
        assert "".join(pieces) == whole.text
        assert all(pieces)


def test_a_stream_may_be_left_early_and_an_error_comes_through(pretrained):
    stream = pretrained.stream("Once upon", max_new_tokens=400)
    first = next(stream)
    stream.close()
    assert first
    assert len(pretrained._engine.remembered.known) < 400
    with pytest.raises(DataError, match="The prompt is empty"):
        next(pretrained.stream(""))
    assert not [thread for thread in threading.enumerate() if thread.name == "bitnet-train stream"]


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "2 + 2?"},
]


WRITTEN_OUT = "system: Be brief.\nuser: hi\nassistant: Hello.\nuser: 2 + 2?\nassistant:"


@pytest.mark.parametrize("chat", [False, True])
def test_a_list_of_messages_is_a_chat_with_its_system_message_and_its_history(native, folder, chat):
    plain = native.generate(WRITTEN_OUT, max_new_tokens=4)
    made = native.generate(CHAT, max_new_tokens=4, chat=chat)
    assert (made.token_ids, made.num_prompt_tokens) == (plain.token_ids, plain.num_prompt_tokens)
    assert "".join(native.stream(CHAT, max_new_tokens=4, chat=chat)) == plain.text
    assert [one.text for one in native.generate([CHAT, CHAT[:2]], max_new_tokens=4, chat=chat)] == [
        plain.text,
        native.generate(CHAT[:2], max_new_tokens=4).text,
    ]
    by_torch = generate(load(folder), load_tokenizer(folder), CHAT, max_new_tokens=4, chat=chat)
    assert (by_torch.token_ids, by_torch.num_prompt_tokens) == (plain.token_ids, plain.num_prompt_tokens)


def test_a_message_alone_or_a_broken_one_is_refused_by_every_door(native, folder):
    for wrong in (CHAT[0], [{"role": "user", "text": "hi"}], [CHAT[0], "hi"]):
        for ask in (
            lambda prompt: native.generate(prompt, chat=True),
            lambda prompt: list(native.stream(prompt, chat=True)),
            lambda prompt: generate(load(folder), load_tokenizer(folder), prompt, chat=True),
        ):
            with pytest.raises(DataError):
                ask(wrong)


def test_a_chat_prompt_goes_through_the_template(native):
    chat = native.generate("hi", max_new_tokens=4, chat=True)
    plain = native.generate("user: hi\nassistant:", max_new_tokens=4)
    assert (chat.token_ids, chat.num_prompt_tokens) == (plain.token_ids, plain.num_prompt_tokens)
