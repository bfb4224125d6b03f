"""The `Modelfile` beside a GGUF: its template writes what the chat template writes, its values are the model's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.exporters.gguf.chat_shape import find_shape
from bitnet_train.exporters.gguf.go_template import go_template
from bitnet_train.exporters.gguf.modelfile import ChatFormat, modelfile
from bitnet_train.templates.render import render_template
from tests.fixtures.go_templates import read_modelfile, render_go

NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM2 = (
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a "
    "helpful \"assistant\".<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + "
    "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + "
    "m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + eos_token }}{% elif m['role'] "
    "== 'system' %}{{ '<|system|>\n' + m['content'] + eos_token }}{% elif m['role'] == 'assistant' %}"
    "{{ '<|assistant|>\n' + m['content'] + eos_token }}{% endif %}{{ '\n' }}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}{{ bos_token }}{% for m in rest %}{% if m['role'] == 'user' %}"
    "{% if PLACE and system is defined %}{{ '[INST] ' + system + '\n\n' + m['content'] + '[/INST]' }}{% else %}"
    "{{ '[INST] ' + m['content'] + '[/INST]' }}{% endif %}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + "
    "'\n' + m['content'] + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ '' }}{% endif %}"
)
BRACES = (
    "{% for m in messages %}{{ '{{' + m['role'] + '}} ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '{{assistant}} ' }}{% endif %}"
)
KNOWN = {
    "chatml": CHATML,
    "smollm2": SMOLLM2,
    "llama3": LLAMA3,
    "zephyr": ZEPHYR,
    "mistral, system in the first question": MISTRAL.replace("PLACE", "loop.first"),
    "mistral, system in the last question": MISTRAL.replace("PLACE", "loop.last"),
    "gemma": GEMMA,
    "phi3": PHI3,
    "braces": BRACES,
}
WITHOUT_SYSTEM = ("gemma",)
NO_SHAPE = {
    "numbers its turns": "{% for m in messages %}{{ loop.index }}. {{ m['content'] }}\n{% endfor %}",
    "forgets earlier answers": (
        "{% for m in messages %}{% if m['role'] == 'user' or loop.last %}<u>{{ m['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<a>{% endif %}"
    ),
    "counts its messages first": "{{ messages | length }}{% for m in messages %}<{{ m['content'] }}>{% endfor %}",
    "shouts": "{% for m in messages %}<{{ m['content'] | upper }}>{% endfor %}",
    "refuses": "{{ raise_exception('no') }}",
    "is no template": "{% for %}",
}


def chat(*turns: str) -> list[dict[str, str]]:
    """Return messages; the first letter of each says whose it is."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]


CHATS = [
    chat("u:Hi"),
    chat("u:Hi", "a:Hello.", "u:{{ .System }} and {% raw %}?"),
    chat("u:one", "a:two", "u:three", "a:four", "u:five"),
    chat("s:Be brief.", "u:Hi"),
    chat("s:Be brief.\n\nBe kind.", "u:one", "a:two\nlines", "u:Grüße 世界"),
]


@pytest.mark.parametrize("name", KNOWN)
def test_the_template_in_go_writes_what_the_chat_template_writes(name: str) -> None:
    made = modelfile(ChatFormat(KNOWN[name], NAMES, ""), context=2048, ends=["</s>"])
    values = dict(read_modelfile(made.text))
    default = values.get("SYSTEM")
    for messages in CHATS:
        if messages[0]["role"] == "system" and name in WITHOUT_SYSTEM:
            continue
        # Ollama puts the SYSTEM of the file before a conversation that has none
        has_default = default is not None and messages[0]["role"] != "system"
        asked = [{"role": "system", "content": default}, *messages] if has_default else messages
        assert render_go(values["TEMPLATE"], asked) == render_template(KNOWN[name], messages, NAMES)


@pytest.mark.parametrize("name", KNOWN)
def test_the_token_that_begins_every_text_is_left_to_ollama(name: str) -> None:
    made = modelfile(ChatFormat(KNOWN[name], NAMES, "<s>"), context=2048, ends=[])
    template = dict(read_modelfile(made.text)).get("TEMPLATE")
    begins = render_template(KNOWN[name], CHATS[0], NAMES).startswith("<s>")
    assert (template is not None) == begins
    if template is not None:
        assert f"<s>{render_go(template, CHATS[1])}" == render_template(KNOWN[name], CHATS[1], NAMES)


@pytest.mark.parametrize("name", NO_SHAPE)
def test_a_template_that_is_more_than_strings_around_messages_is_left_out_and_told(name: str) -> None:
    made = modelfile(ChatFormat(NO_SHAPE[name], NAMES), context=64, ends=["</s>"])
    assert made.text == 'FROM ./model.gguf\nPARAMETER num_ctx 64\nPARAMETER stop "</s>"\n'
    assert made.notes == (
        "the chat template cannot be said exactly in Ollama's language, so the Modelfile has no TEMPLATE: Ollama takes "
        "the nearest that it knows",
    )


def test_a_model_without_a_chat_template_has_none_in_go() -> None:
    made = modelfile(ChatFormat(None, NAMES), context=64, ends=[])
    assert "TEMPLATE" not in made.text
    assert made.notes[0].startswith("the model has no chat template")


def test_what_ollama_does_otherwise_is_noted() -> None:
    assert "takes spaces away" in modelfile(ChatFormat(LLAMA3, NAMES), context=64, ends=[]).notes[0]
    assert "takes no system message" in modelfile(ChatFormat(GEMMA, NAMES), context=64, ends=[]).notes[0]
    assert modelfile(ChatFormat(CHATML, NAMES), context=64, ends=[]).notes == ()


def test_characters_that_ollama_would_drop_or_end_at_are_not_written() -> None:
    for letters in ("\u200b", '"""'):
        source = CHATML.replace("<|im_end|>", letters)
        made = modelfile(ChatFormat(source, NAMES), context=64, ends=["a\u200b", 'say "x"', "\n"])
        assert "TEMPLATE" not in made.text
        assert "characters that a Modelfile cannot hold" in made.notes[0]
        assert made.text.count("PARAMETER stop") == 2
        assert 'PARAMETER stop """say "x""""' in made.text


def test_sampling_that_the_model_recommends_is_written_and_none_is_made_up() -> None:
    wise = {"do_sample": True, "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.1, "top_p": None}
    made = modelfile(ChatFormat(CHATML, NAMES), context=8192, ends=["<|im_end|>", "<|im_end|>"], generation=wise)
    assert [pair for pair in read_modelfile(made.text) if pair[0].startswith("PARAMETER")] == [
        ("PARAMETER num_ctx", "8192"),
        ("PARAMETER stop", "<|im_end|>"),
        ("PARAMETER temperature", "0.6"),
        ("PARAMETER top_k", "20"),
        ("PARAMETER repeat_penalty", "1.1"),
    ]
    greedy = modelfile(ChatFormat(CHATML, NAMES), context=64, ends=[], generation={**wise, "do_sample": False})
    assert "temperature" not in greedy.text


def test_the_default_system_message_is_an_instruction_and_no_part_of_the_template() -> None:
    values = dict(read_modelfile(modelfile(ChatFormat(SMOLLM2, NAMES), context=64, ends=[]).text))
    assert values["SYSTEM"] == 'You are a helpful "assistant".'
    assert "helpful" not in values["TEMPLATE"]


def test_a_shape_that_one_conversation_contradicts_is_none() -> None:
    def render(messages, ask: bool) -> str:
        text = render_template(CHATML, messages, NAMES, ask=ask)
        return text.replace("It is 2.", "It is 3.")

    assert find_shape(render) is None
    shape = find_shape(lambda messages, ask: render_template(CHATML, messages, NAMES, ask=ask))
    assert shape is not None
    assert go_template(shape).endswith("{{ end }}{{ end }}<|im_start|>assistant\n")


@pytest.mark.slow
def test_an_export_has_it_beside_the_gguf_where_that_is_asked_for(pretrained_folder: Path, tmp_path: Path) -> None:
    words = ["export", str(pretrained_folder), "export=gguf", "--quiet"]
    assert main([*words, f"export.out={tmp_path / 'with'}", "export.modelfile=true"]) == 0
    assert main([*words, f"export.out={tmp_path / 'without'}"]) == 0
    assert not (tmp_path / "without" / "Modelfile").exists()
    values = read_modelfile((tmp_path / "with" / "Modelfile").read_text())
    assert values[0] == ("FROM", "./model.gguf")
    assert ("PARAMETER num_ctx", "512") in values
    assert ("PARAMETER stop", "<|im_end|>") in values
    assert main(["validate", str(tmp_path / "with"), f"validate.against={pretrained_folder}", "--quiet"]) == 0


def test_it_is_refused_beside_another_format(pretrained_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(pretrained_folder), "export=plain", "export.modelfile=true"]) == 2
    assert "`export.modelfile=True` (command line) is written beside a GGUF alone" in capsys.readouterr().err
