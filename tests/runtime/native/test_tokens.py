from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoTokenizer

from bitnet_train.errors import DataError, FormatError
from bitnet_train.runtime import load as runtime_load
from bitnet_train.runtime.messages import read_prompts
from bitnet_train.runtime.native.tokens import read_tokens
from bitnet_train.templates.render import render_template
from bitnet_train.validation.prompts import PROMPTS

TEXTS = [*PROMPTS, "naïve 日本 🙂", "  two  spaces\n\ttab", "<|endoftext|> in the text", "<|im_start|>user"]
CHAT = [
    {"role": "system", "content": "Be <brief> & kind."},
    {"role": "user", "content": "hi\n"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "日本?"},
]
TEMPLATES = [
    "{% for m in messages %}{{ m['role'] }}: {{ m.content }}\n{% endfor %}assistant:",
    "{{ bos_token }}{% for m in messages %}\n  {% if m.role == 'user' %}\nU{{ loop.index }} {% endif %}\n{% endfor %}",
    "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content | trim }}{% endfor %}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{% if add_generation_prompt %}go{% endif %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ tools }}",
    "{% macro turn(m) %}[{{ m.role | upper }}]{% endmacro %}{% for m in messages %}{{ turn(m) }}{% endfor %}",
]


@pytest.fixture
def copy(pretrained_folder, tmp_path):
    return shutil.copytree(pretrained_folder, tmp_path / "copy")


@pytest.fixture(scope="module", params=["pretrained", "bytes"])
def both(request, pretrained_folder, make_folder):
    folder = pretrained_folder if request.param == "pretrained" else make_folder()
    return read_tokens(folder), AutoTokenizer.from_pretrained(folder)


def test_ids_and_text_are_those_of_transformers(both):
    ours, theirs = both
    for text in TEXTS:
        for special in (True, False):
            assert ours.encode(text, special=special) == theirs(text, add_special_tokens=special)["input_ids"]
        token_ids = ours.encode(text)
        assert ours.decode(token_ids) == theirs.decode(token_ids, skip_special_tokens=True)


def test_a_chat_prompt_is_that_of_transformers(both):
    ours, theirs = both
    assert ours.chat(CHAT) == theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert ours.prompt_ids(CHAT) == ours.encode(ours.chat(CHAT), special=False)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_is_rendered_as_transformers_does(template, pretrained_folder):
    theirs = AutoTokenizer.from_pretrained(pretrained_folder)
    expected = theirs.apply_chat_template(CHAT, chat_template=template, tokenize=False, add_generation_prompt=True)
    assert render_template(template, CHAT, theirs.special_tokens_map) == expected


def test_whatever_else_a_message_has_reaches_the_template_as_in_transformers(pretrained_folder):
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, None]}}}
    chat = [CHAT[0], {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "3"}]
    template = (
        "{% for m in messages %}{{ m.role }}{% if m.tool_calls %}{% for c in m.tool_calls %}"
        "{{ c.function.arguments | tojson }}{% endfor %}{% else %}{{ m.content }}{% endif %}"
        "{{ m.content is none }}{% endfor %}"
    )
    theirs = AutoTokenizer.from_pretrained(pretrained_folder)
    expected = theirs.apply_chat_template(chat, chat_template=template, tokenize=False, add_generation_prompt=True)
    (read,), _ = read_prompts(chat, chat=True)
    assert render_template(template, read, {}) == expected
    assert '{"a": 1, "b": [2, null]}' in expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception('only user messages') }}",
        "{% for %}",
        "{{ 1 / 0 }}",
        "{{ messages.nothing.there }}",
    ],
)
def test_a_template_that_breaks_out_or_breaks_is_an_error_for_people(template):
    with pytest.raises(DataError, match="chat template of this model cannot be used"):
        render_template(template, CHAT, {})


def test_templates_come_from_the_file_the_settings_or_a_list_of_them(copy):
    (copy / "chat_template.jinja").unlink()
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    cases = ["from settings", [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "from a list"}]]
    for given in cases:
        (copy / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": given}))
        assert read_tokens(copy).chat(CHAT) == AutoTokenizer.from_pretrained(copy).apply_chat_template(
            CHAT, tokenize=False, add_generation_prompt=True
        )
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="no chat template"):
        read_tokens(copy).prompt_ids(CHAT)


def test_named_tokens_may_be_objects(copy):
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings["bos_token"] = {"content": "<s>", "lstrip": False}
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    (copy / "chat_template.jinja").write_text("{{ bos_token }}!")
    assert read_tokens(copy).chat(CHAT) == "<s>!"


def test_a_folder_without_a_tokenizer_or_with_a_broken_one_is_explained(copy):
    with pytest.raises(DataError, match="The prompt is empty"):
        read_tokens(copy).prompt_ids("")
    (copy / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(FormatError, match=r"tokenizer\.json cannot be read"):
        read_tokens(copy)
    (copy / "tokenizer_config.json").unlink()
    with pytest.raises(FormatError, match="exported without a tokenizer"):
        read_tokens(copy)


def test_a_tokenizer_in_several_files_is_left_to_transformers(copy, monkeypatch):
    (copy / "tokenizer.json").unlink()
    asked = []
    monkeypatch.setattr(runtime_load, "load_tokenizer", asked.append)
    read_tokens(copy)
    assert asked == [copy]
