from __future__ import annotations

from typing import Any

import pytest

from bitnet_train.errors import DataError
from bitnet_train.train.data.chat import Rendered, render, segments, tokenise
from bitnet_train.train.data.chat_template import ChatTemplate
from bitnet_train.train.data.chat_turn import NO_END
from bitnet_train.train.data.examples import RowReader
from bitnet_train.train.data.row_shape import FieldNames
from tests.fixtures.data_examples import CALLING, CHATML, make_tokenizer

TURN = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
WITHOUT_END = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}{% endfor %}"
WITH_EOS = "{% for m in messages %}" + TURN + "{% endfor %}{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
PLAIN = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{{ 'assistant: ' if add_generation_prompt }}"
)
R1 = (  # cuts the reasoning out of the answer, and prompts for it
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'].split('</think>')[-1] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
SWITCHED = (  # Gemma 4's way: an empty block of reasoning is prompted for, unless it is wanted, and not written
    "{% for m in messages %}" + TURN + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{{ '<|channel>thought\n' if enable_thinking else '<|channel>thought\n<channel|>' }}{% endif %}"
)
CLOSING = (  # GLM 4.7's way: an answer without reasoning closes at once what the prompt opened
    "{% for m in messages %}{% set thought = '</think>' if m['role'] == 'assistant' else '' %}"
    "{{ '<|im_start|>' + m['role'] + thought + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{{ '<|im_start|>assistant<think>' if add_generation_prompt }}"
)
SYSTEM_LAST = (  # Mistral Nemo's way: the system text stands in the last question, and goes with the next answer
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST]' }}{{ messages[0]['content'] + ' ' if loop.last and "
    "messages[0]['role'] == 'system' else '' }}{{ m['content'] + '[/INST]' }}{% elif m['role'] == 'assistant' %}"
    "{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)

UNASKED = (  # Command R7B's way: the prompt for an answer is there whether asked for or not
    "{% for m in messages %}{{ '<|im_start|>' + ('<|endoftext|>' if m['role'] == 'assistant' else '') + m['content'] }}"
    "{{ '<|im_end|>' }}{% endfor %}{{ '<|im_start|><|endoftext|>' }}"
)


def chat(*answers: str, **fields: Any) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for number, text in enumerate(answers):
        turns += [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": text, **fields}]
    return turns


def rendered(
    template: str, messages: list[dict[str, Any]], variables: dict[str, Any] | None = None, **row: Any
) -> tuple[list[Rendered], ChatTemplate]:
    (example,) = RowReader("chat", FieldNames()).examples([("row", {"messages": messages, **row})])
    made = ChatTemplate(make_tokenizer(template), variables)
    return render(example, made), made  # type: ignore[arg-type]


def spans(samples: list[Rendered]) -> list[str]:
    return [sample.text[first:last] for sample in samples for first, last in sample.trained]


def test_a_turn_that_the_next_one_closes_is_trained_with_the_token_that_follows() -> None:
    samples, template = rendered(WITHOUT_END + PROMPT, chat("yes", "no"))
    assert spans(samples) == ["yes<|im_start|>", "no<|im_start|>"]
    assert len(samples) == 1
    assert samples[0].text.endswith("no<|im_start|>")
    (note,) = template.notes.items()
    assert note == ("assistant turns that <|im_start|> closes, which comes only with the next turn: learned too", 2)


def test_the_token_that_follows_is_one_of_the_trained_tokens() -> None:
    samples, template = rendered(WITHOUT_END + PROMPT, chat("yes", "no"))
    tokens = tokenise(samples[0], template.tokenizer)
    assert [text for text, trained in segments(tokens.ids, tokens.trained, template.tokenizer) if trained] == [
        "yes<|im_start|>",
        "no<|im_start|>",
    ]


def test_an_end_of_text_behind_the_last_turn_only_is_not_part_of_a_turn() -> None:
    samples, template = rendered(WITH_EOS + PROMPT, chat("yes", "no"))
    assert spans(samples) == ["yes<|im_end|>", "no<|im_end|>"]
    assert not template.notes


def test_a_prompt_that_is_written_unasked_is_not_part_of_a_turn() -> None:
    samples, _ = rendered(UNASKED, chat("yes", "no"))
    assert spans(samples) == ["yes<|im_end|>", "no<|im_end|>"]


def test_turns_that_nothing_closes_are_counted() -> None:
    samples, template = rendered(PLAIN, chat("yes", "no"))
    assert spans(samples) == ["yes\n", "no\n"]
    assert template.notes == {NO_END: 2}


def test_reasoning_that_the_template_cuts_is_learned_as_the_row_has_it() -> None:
    samples, _ = rendered(R1, chat("<think>\nhm\n</think>\n\nyes", "<think>\nwell\n</think>\n\nno"))
    assert spans(samples) == ["hm\n</think>\n\nyes<|im_end|>", "well\n</think>\n\nno<|im_end|>"]
    assert [sample.text[: sample.trained[0][0]].endswith("assistant\n<think>\n") for sample in samples] == [True, True]


def test_an_answer_without_the_reasoning_that_is_prompted_for_is_refused_with_that_reason() -> None:
    with pytest.raises(
        DataError, match=r"row: .* generation prompt ends in '<think>.n', but turn 2(.|\n)*in its content"
    ):
        rendered(R1, chat("yes"))


@pytest.mark.parametrize("variables", [{}, {"enable_thinking": False}])
def test_a_closed_block_that_is_prompted_for_stands_before_the_answer(variables: dict[str, Any]) -> None:
    samples, _ = rendered(SWITCHED, chat("yes", "no"), variables)
    assert spans(samples) == ["yes<|im_end|>", "no<|im_end|>"]
    assert samples[1].text.endswith("<|im_start|>assistant\n<|channel>thought\n<channel|>no<|im_end|>")


def test_a_variable_of_the_template_is_handed_to_it() -> None:
    with pytest.raises(DataError, match=r"ends in '<.channel>thought.n'(.|\n)*reads: enable_thinking\)"):
        rendered(SWITCHED, chat("yes"), {"enable_thinking": True})


def test_a_block_that_the_answer_closes_at_once_is_well_formed() -> None:
    samples, _ = rendered(CLOSING, chat("yes", "no"))
    assert spans(samples) == ["</think>yes<|im_end|>", "</think>no<|im_end|>"]
    assert "<think></think>no" in samples[1].text


def test_turns_that_are_rewritten_once_answered_are_learned_behind_what_the_model_sees() -> None:
    samples, _ = rendered(SYSTEM_LAST, [{"role": "system", "content": "be brief"}, *chat("yes", "no")])
    assert [sample.text for sample in samples] == [
        "[INST]be brief q0[/INST]yes<|endoftext|>",
        "[INST]q0[/INST]yes<|endoftext|>[INST]be brief q1[/INST]no<|endoftext|>",
    ]
    assert spans(samples) == ["yes<|endoftext|>", "no<|endoftext|>"]


CALL = {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
CALLED = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "rain"},
    {"role": "assistant", "content": "It rains."},
]
TOOLS = [{"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}}]


@pytest.mark.parametrize("form", CALLING)
def test_calls_and_tools_go_to_the_template_in_the_form_it_shows(form: str) -> None:
    samples, template = rendered(CALLING[form], CALLED, tools=TOOLS)
    assert spans(samples) == ['<call>weather {"city": "Köln"}</call><|im_end|>', "It rains.<|im_end|>"]
    assert samples[0].text.startswith('<tools>[{"type": "function", "function": {"name": "weather"')
    assert not template.notes


def test_calls_that_the_template_does_not_write_are_refused() -> None:
    with pytest.raises(DataError, match=r"row message 2: .*`tool_calls` and no text(.|\n)*`weight: 0`"):
        rendered(CHATML, CALLED)


def test_fields_and_roles_that_the_template_does_not_read_are_counted() -> None:
    asked = [{"role": "narrator", "content": "once"}, {"role": "user", "content": "q", "name": "Bo"}]
    answered = [{"role": "assistant", "content": "a", "reasoning_content": "hm", "tool_calls": [CALL]}]
    _, template = rendered(CHATML, [*asked, *answered], tools=TOOLS)
    assert template.notes == {
        "messages: their `name` is not read by the chat template": 1,
        "assistant turns whose `reasoning_content` the chat template leaves out": 1,
        "messages: their `tool_calls` is not read by the chat template": 1,
        "chats: `tools` are not read by the chat template": 1,
        "turns of role `narrator`, which is not one of system, developer, user, assistant, tool": 1,
        "assistant turns with `tool_calls` that the chat template leaves out": 1,
    }


def test_a_turn_that_the_template_leaves_out_is_counted() -> None:
    without_system = "{% for m in messages if m['role'] != 'system' %}" + TURN + "{% endfor %}" + PROMPT
    _, template = rendered(without_system, [{"role": "system", "content": "be brief"}, *chat("yes")])
    assert template.notes == {"turns of role `system` whose text the chat template changes or leaves out": 1}


def test_a_chat_that_begins_with_the_assistant_is_refused_with_that_reason() -> None:
    turns = [{"role": "assistant", "content": "hello"}, *chat("yes")]
    with pytest.raises(DataError, match=r"row: the chat begins with the assistant(.|\n)*`weight: 0`"):
        rendered(CHATML, turns)
    samples, _ = rendered(CHATML, [{**turns[0], "weight": 0}, *turns[1:]])
    assert spans(samples) == ["yes<|im_end|>"]


def test_a_template_that_needs_tools_says_so() -> None:
    needing = "{% for tool in tools %}{{ tool['function']['name'] }}{% endfor %}" + CHATML
    with pytest.raises(DataError, match=r"refused the turns \(user.*\)(.|\n)*The row gives no `tools`, which"):
        rendered(needing, chat("yes"))


@pytest.mark.parametrize("name", ["thinking", "messages", "tools", "add_generation_prompt"])
def test_a_variable_that_the_template_does_not_read_is_refused(name: str) -> None:
    with pytest.raises(
        DataError, match=rf"`data\.chat_template_variables` sets {name}(.|\n)*It reads: enable_thinking\."
    ):
        ChatTemplate(make_tokenizer(SWITCHED), {name: True})


def test_a_variable_without_a_template_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"`data\.chat_template_variables` is set, but the tokenizer has no chat template"
    ):
        ChatTemplate(make_tokenizer(None), {"enable_thinking": True})
