"""Where a chat template closes the assistant's turn, an exported model stops; where it does not, nothing is made up."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from transformers import AutoTokenizer

from bitnet_train.importers.load import tiny_folder
from bitnet_train.model.turn_end import turn_end
from bitnet_train.packed import export_packed

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(tiny_folder())


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (TURNS + "<|im_end|>\n{% endfor %}", "<|im_end|>"),
        (TURNS + "\n<|im_end|>\n{% endfor %}", "<|im_end|>"),
        (TURNS + "{% if m.role == 'assistant' %}<|endoftext|>{% endif %}{% endfor %}", "<|endoftext|>"),
        (TURNS + "\n{% endfor %}", None),
        (TURNS + " end.{% endfor %}", None),
        ("{{ messages[0].content }}<|im_end|>", None),
        ("{{ raise_exception('system first') }}", None),
        (None, None),
    ],
)
def test_the_end_of_a_turn_is_the_special_token_after_the_answer(tokenizer, template, end):
    words = deepcopy(tokenizer)
    words.chat_template = template
    assert turn_end(words) == (None if end is None else tokenizer.convert_tokens_to_ids(end))


@pytest.mark.parametrize(("given", "kept"), [(0, [0, 2]), ([0, 2], [0, 2]), ([7, 0], [7, 0, 2]), (None, 2)])
def test_an_export_ends_there_besides_where_its_original_does(make_trained, tokenizer, tmp_path, given, kept):
    model = make_trained()
    model.generation_config.eos_token_id = given
    export_packed(model, tokenizer, tmp_path / "out", {})
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == kept
    assert model.generation_config.eos_token_id == given
