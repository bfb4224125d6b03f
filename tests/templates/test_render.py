from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from bitnet_train.templates.process import RenderError
from bitnet_train.templates.render import render_chat

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, None, 0.5]}}}
CHATS = [
    [{"role": "user", "content": "hi \ud800 日本 \n"}],
    [{"role": "system", "content": "<&>"}, {"role": "user", "content": "?", "name": None, "weight": 2}],
    [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
    *([{"role": "assistant", "content": "4", name: "why"}] for name in ("reasoning_content", "thinking", "reasoning")),
    [{"role": "assistant", "content": "4", "reasoning": "b", "thinking": "a", "reasoning_content": None}],
]
TEMPLATES = [
    "{% for m in messages %}{{ m.role }}|{{ m.content }}|{{ m.keys() | list }}\n{% endfor %}{{ bos_token }}",
    "{{ messages | tojson }} {{ tools | tojson(indent=1) }} {{ documents is none }} {{ add_generation_prompt }}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% if m.thinking is defined %}{% set ns.n = ns.n + 1 %}"
    "{{ m.thinking }}{{ m.reasoning_content }}{% endif %}{% endfor %}{{ ns.n }}{{ depth }}{{ dict(a=1) }}",
    "  {% for m in messages %}\n  {% if m.role == 'system' %}{% continue %}{% endif %}\n  {% generation %}"
    "{{ m.content | trim }}{% endgeneration %}\n{% endfor %}",
    "{{ messages[-1].content | trim }}",
]


@pytest.fixture(scope="module")
def tokenizer(pretrained_folder):
    return AutoTokenizer.from_pretrained(pretrained_folder)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("ask", [True, False])
def test_a_chat_is_rendered_as_transformers_does(template, ask, tokenizer):
    tokenizer.chat_template = template
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    for chat in CHATS:
        for given in (None, tools):
            expected = tokenizer.apply_chat_template(
                chat, tools=given, tokenize=False, add_generation_prompt=ask, depth=3
            )
            assert render_chat(tokenizer, chat, tools=given, ask=ask, variables={"depth": 3}) == expected


@pytest.mark.parametrize("template", TEMPLATES[:1] + TEMPLATES[-1:])
def test_a_last_message_is_continued_as_transformers_does(template, tokenizer):
    tokenizer.chat_template = template
    for content in ("so far", "so far ", "so\nfar\n"):
        chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": content}]
        expected = tokenizer.apply_chat_template(chat, tokenize=False, continue_final_message=True)
        assert render_chat(tokenizer, chat, ask=False, go_on=True) == expected
    tokenizer.chat_template = "nothing"
    with pytest.raises(RenderError, match="does not write the last message"):
        render_chat(tokenizer, chat, ask=False, go_on=True)


def test_of_several_templates_the_one_for_tools_is_taken_with_tools(tokenizer):
    tokenizer.chat_template = {"default": "plain", "tool_use": "tools"}
    assert render_chat(tokenizer, CHATS[0]) == "plain"
    assert render_chat(tokenizer, CHATS[0], tools=[{"name": "f"}]) == "tools"


def test_a_tokenizer_that_renders_by_itself_does_so():
    class Own:
        def apply_chat_template(self, chat, **given):
            return f"{chat} {given['tokenize']} {given['add_generation_prompt']} {given['depth']}"

    assert render_chat(Own(), [{"role": "user"}], variables={"depth": 3}) == "[{'role': 'user'}] False True 3"
