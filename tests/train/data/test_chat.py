from __future__ import annotations

import json

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from bitnet_train.errors import DataError
from bitnet_train.train.data.chat import Rendered, render_instruction, segments, tokenise
from bitnet_train.train.data.chat import render as render_with
from bitnet_train.train.data.chat_template import ChatTemplate
from bitnet_train.train.data.examples import Answered, Completion, Conversation, Instruction, RowReader
from bitnet_train.train.data.messages import Message
from bitnet_train.train.data.row_shape import FieldNames
from bitnet_train.train.data.sources import file_rows
from tests.fixtures.data_examples import CHATML, TEMPLATES, make_tokenizer, shared_data

QUESTIONS = ["hi", "and now?"]
ANSWERS = ["  def add(a, b):\n    return a + b", "naïve 🙂 漢字\n\nyes "]


def render(example: Answered, tokenizer: PreTrainedTokenizerBase) -> list[Rendered]:
    return render_with(example, ChatTemplate(tokenizer))


def conversation(num_turns: int = 2, system: str = "") -> Conversation:
    messages = [Message("system", system, False)] if system else []
    for question, answer in zip(QUESTIONS[:num_turns], ANSWERS, strict=False):
        messages += [Message("user", question, False), Message("assistant", answer, True)]
    return Conversation(tuple(messages), "rows.jsonl:7")


def trained_texts(rendered: Rendered) -> list[str]:
    return [rendered.text[first:last] for first, last in rendered.trained]


@pytest.mark.parametrize("name", ["chatml", "injecting"])
@pytest.mark.parametrize("system", ["", "be brief"])
def test_the_answers_with_their_end_token_are_trained_and_nothing_else(name: str, system: str) -> None:
    (rendered,) = render(conversation(system=system), make_tokenizer(TEMPLATES[name]))
    assert trained_texts(rendered) == [answer + "<|im_end|>" for answer in ANSWERS]


def test_a_system_prompt_that_the_template_injects_is_there_but_not_trained() -> None:
    (rendered,) = render(conversation(), make_tokenizer(TEMPLATES["injecting"]))
    assert rendered.text.startswith("<|im_start|>system\nYou are kind.<|im_end|>\n")
    assert rendered.trained[0][0] > rendered.text.index("hi<|im_end|>")


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("trim", [False, True])
def test_tokens_are_those_of_the_whole_text_and_the_trained_ones_decode_to_the_answers(
    template: str, trim: bool
) -> None:
    tokenizer = make_tokenizer(TEMPLATES[template], trim=trim)
    for rendered in render(conversation(), tokenizer):
        tokens = tokenise(rendered, tokenizer)
        assert tokens.ids.tolist() == tokenizer(rendered.text, add_special_tokens=False)["input_ids"]
        shown = [text for text, trained in segments(tokens.ids, tokens.trained, tokenizer) if trained]
        wanted = trained_texts(rendered)
        if template == "unmarked":  # the space before an answer can be part of its first token
            shown, wanted = [text.lstrip(" ") for text in shown], [text.lstrip(" ") for text in wanted]
        assert shown == wanted


def test_a_template_that_rewrites_earlier_turns_gives_one_sample_per_answer() -> None:
    samples = render(conversation(), make_tokenizer(TEMPLATES["forgetting"]))
    assert [trained_texts(sample) for sample in samples] == [
        [f"<think>\n\n</think>\n\n{answer}<|im_end|>"] for answer in ANSWERS
    ]
    assert all(sample.text.rstrip().endswith("<|im_end|>") for sample in samples)


def test_a_turn_without_an_end_token_is_trained_to_its_very_end() -> None:
    (rendered,) = render(conversation(), make_tokenizer(TEMPLATES["unmarked"]))
    assert trained_texts(rendered) == [answer + "\n" for answer in ANSWERS]


def test_only_the_turns_marked_as_trained_are_trained() -> None:
    messages = list(conversation().messages)
    messages[1] = Message("assistant", messages[1].content, False)
    (rendered,) = render(Conversation(tuple(messages)), make_tokenizer())
    assert trained_texts(rendered) == [ANSWERS[1] + "<|im_end|>"]


def test_an_instruction_is_rendered_as_a_chat_where_there_is_a_template() -> None:
    (rendered,) = render(Instruction("q", "a", "more"), make_tokenizer())
    assert "<|im_start|>user\nq\n\nmore<|im_end|>" in rendered.text
    assert trained_texts(rendered) == ["a<|im_end|>"]


def test_an_instruction_without_a_template_gets_a_plain_prompt_bos_and_a_trained_eos() -> None:
    tokenizer = make_tokenizer(None)
    (rendered,) = render(Instruction("q", "a", "more", "be brief"), tokenizer)
    asked = "be brief\n\n### Instruction:\nq\n\n### Input:\nmore\n\n### Response:\n"
    assert rendered.text == asked + "a<|endoftext|>"
    tokens = tokenise(rendered, tokenizer)
    assert tokens.ids[0] == tokens.ids[-1] == tokenizer.eos_token_id
    assert segments(tokens.ids, tokens.trained, tokenizer)[1:] == [("a<|endoftext|>", True)]


@pytest.mark.parametrize("template", [CHATML, None])
def test_a_completion_stands_right_behind_its_prompt_with_or_without_a_template(template: str | None) -> None:
    tokenizer = make_tokenizer(template)
    (rendered,) = render(Completion("def add(a, b):", "\n    return a + b"), tokenizer)
    assert rendered.text == "def add(a, b):\n    return a + b<|endoftext|>"
    tokens = tokenise(rendered, tokenizer)
    assert tokens.ids[0] == tokenizer.bos_token_id
    assert segments(tokens.ids, tokens.trained, tokenizer)[-1] == ("\n    return a + b<|endoftext|>", True)


def test_a_completion_that_ends_with_the_end_of_text_does_not_get_another() -> None:
    (rendered,) = render(Completion("q", "a<|endoftext|>"), make_tokenizer())
    assert rendered.text == "qa<|endoftext|>"


def test_an_instruction_without_bos_begins_with_its_text() -> None:
    tokenizer = make_tokenizer(None, bos=False)
    tokens = tokenise(render_instruction(Instruction("q", "a"), tokenizer), tokenizer)
    assert str(tokenizer.decode(tokens.ids.tolist())).startswith("### Instruction")


def test_a_chat_without_a_template_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:7: chat rows need .* template(.|\n)*`data\.kind=instruction`"):
        render(conversation(), make_tokenizer(None))


def test_an_answer_that_renders_to_nothing_is_an_error() -> None:
    silent = (
        "{% for m in messages %}{{ m['role'] }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
    )
    tokenizer = make_tokenizer(silent)
    (rendered,) = render(conversation(num_turns=1), tokenizer)
    with pytest.raises(DataError, match=r"rows\.jsonl:7: no token to learn from"):
        tokenise(rendered, tokenizer)


def test_a_template_whose_prompt_is_no_prefix_of_the_answer_is_refused() -> None:
    other = CHATML.replace("<|im_start|>assistant\n' }}{% endif %}", "<|im_start|>bot\n' }}{% endif %}")
    with pytest.raises(DataError, match=r"rows\.jsonl:7: .* prompt ends in 'bot.n', but turn 2 is not written so"):
        render(conversation(), make_tokenizer(other))


def test_a_template_that_refuses_the_roles_is_quoted() -> None:
    strict = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('system first') }}{% endif %}" + CHATML
    with pytest.raises(DataError, match=r"rows\.jsonl:7: .* refused the turns \(user, assistant.*\): system first"):
        render(conversation(), make_tokenizer(strict))


@pytest.mark.parametrize("trim", [False, True])
def test_a_token_that_spans_prompt_and_answer_is_trained(trim: bool) -> None:
    """The template ends in a space, and the tokenizer has one token for " the"."""
    tokenizer = make_tokenizer(TEMPLATES["unmarked"], trim=trim)
    (rendered,) = render(Instruction("q", "the fox"), tokenizer)
    tokens = tokenise(rendered, tokenizer)
    assert segments(tokens.ids, tokens.trained, tokenizer)[-1] == (" the fox\n", True)


def test_white_space_tokens_with_trimmed_offsets_belong_to_the_answer() -> None:
    tokenizer = make_tokenizer(trim=True)
    answer = "a\n\n    b\n \n c"
    (rendered,) = render(Instruction("q", answer), tokenizer)
    tokens = tokenise(rendered, tokenizer)
    assert segments(tokens.ids, tokens.trained, tokenizer)[1] == (answer + "<|im_end|>", True)


def test_segments_are_the_runs_of_the_mask() -> None:
    tokenizer = make_tokenizer()
    ids = np.array(tokenizer("abcdef", add_special_tokens=False)["input_ids"])[:4]
    flags = np.array([False, True, True, False])
    parts = segments(ids, flags, tokenizer)
    assert [trained for _, trained in parts] == [False, True, False]
    assert "".join(text for text, _ in parts) == tokenizer.decode(ids.tolist())
    assert segments(ids[:0], flags[:0], tokenizer) == []


REAL = {
    "alpaca/alpaca_en_demo.json": 200,
    "chat/dummy_conversation.json": 200,
    "chat/glaive_toolcall_en_demo.json": 100,
    "chat/v1_sft_demo.jsonl": 100,
    "gsm8k/test.jsonl": 100,
}


@pytest.mark.parametrize("relative", REAL)
def test_the_masks_of_real_rows_decode_to_exactly_the_answers(relative: str) -> None:
    tokenizer = make_tokenizer(TEMPLATES["injecting"])
    rows = list(file_rows(str(shared_data(relative))))[: REAL[relative]]
    for example in RowReader(None, FieldNames()).examples(rows):
        assert isinstance(example, Conversation | Instruction)
        chat = example if isinstance(example, Conversation) else example.as_conversation()
        (rendered,) = render(example, tokenizer)
        tokens = tokenise(rendered, tokenizer)
        shown = [text for text, trained in segments(tokens.ids, tokens.trained, tokenizer) if trained]
        assert shown == [m.content + "<|im_end|>" for m in chat.messages if m.trained], json.dumps(shown)[:200]
