"""Bodies that are damaged in a thousand ways: a form with every number in its range, or an error with its field."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from bitnet_train.serve.api.errors import ApiError
from bitnet_train.serve.api.forms import IGNORED, NEUTRAL, Chat, Completion, Detokenize, Tokenize, parse_form
from bitnet_train.serve.api.texts import texts_of_chat, texts_of_completion

SOUND: dict[Any, dict[str, Any]] = {
    Completion: {
        **{"model": "m", "prompt": ["a", "b"], "max_tokens": 5, "n": 2, "temperature": 0.5, "top_p": 0.9, "seed": 3},
        **{"top_k": 4, "min_p": 0.1, "stop": ["x"], "logprobs": 2, "echo": True, "stream": True, "ignore_eos": False},
        **{"stream_options": {"include_usage": True}, "user": "me", "best_of": 1, "typical_p": 0.9},
        **{"logit_bias": {"5": -100, "17": 2.5}, "repetition_penalty": 1.1},
    },
    Chat: {
        **{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "n": 1, "temperature": 1, "seed": -3},
        **{"logprobs": True, "top_logprobs": 3, "stop": "y", "tools": [], "chat_template_kwargs": {"a": 1}},
        **{"frequency_penalty": 2, "presence_penalty": -0.5},
    },
    Tokenize: {"prompt": "a", "add_special_tokens": False},
    Detokenize: {"tokens": [1, 2]},
}
ODD = [
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    10**30,
    "",
    "x" * 300,
    "\ud800",
    [],
    [[]],
    [[1]],
    {},
    {"a": {}},
    [None],
    ["\x00"],
    [-1],
]


@pytest.mark.parametrize("form", SOUND)
def test_a_damaged_body_is_a_form_or_an_error_with_words(form: Any) -> None:
    dice = random.Random(form.__name__)
    forms, refused = 0, []
    for _ in range(1500):
        body = dict(SOUND[form])
        for _ in range(dice.randint(1, 2)):
            name = dice.choice([*body, "no_such_field"]) if body else "x"
            body.pop(name, None) if dice.random() < 0.2 else body.update({name: dice.choice(ODD)})
        raw = json.dumps(body).encode()
        if dice.random() < 0.3:
            at = dice.randrange(len(raw))
            raw = raw[:at] + bytes([dice.randrange(256)]) + raw[at + dice.randint(0, 3) :]
        try:
            _hold(parse_form(raw, form))
            forms += 1
        except ApiError as error:
            refused.append(error)
    assert min(forms, len(refused)) > 100
    assert {error.status for error in refused} == {400}
    assert all(10 < len(error.message) < 600 and error.response().body for error in refused)


def _hold(read: Any) -> None:
    """Check that a form which was read means texts that a worker can be told of."""
    if not isinstance(read, Completion | Chat):
        return
    texts = texts_of_completion(read) if isinstance(read, Completion) else texts_of_chat(read)
    assert 1 <= len(texts) <= 128
    for text in texts:
        sampling = json.loads(json.dumps(text, allow_nan=False))["sampling"]
        assert 0 <= sampling["temperature"] <= 100
        assert 0 < sampling["top_p"] <= 1
        assert 0 < sampling["typical_p"] <= 1
        assert 0.01 <= sampling["repetition_penalty"] <= 100
        assert all(abs(sampling[f"{kind}_penalty"]) <= 2 for kind in ("frequency", "presence"))
        assert all(0 <= int(token) < 1 << 31 and abs(bias) <= 100 for token, bias in sampling["logit_bias"].items())
        assert -(1 << 63) <= sampling["seed"] < 1 << 64
        assert all(text["stop"])


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_field_that_is_not_done_is_taken_where_it_asks_for_nothing_and_refused_elsewhere(name: str) -> None:
    for neutral in (None, *NEUTRAL[name]):
        parse_form(json.dumps({**SOUND[Chat], name: neutral}).encode(), Chat)
    with pytest.raises(ApiError, match=f"`{name}` is not done"):
        parse_form(json.dumps({**SOUND[Chat], name: "something else"}).encode(), Chat)


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_a_field_that_changes_no_answer_is_taken_whatever_it_says(name: str) -> None:
    parse_form(json.dumps({**SOUND[Chat], name: {"any": ["thing"]}}).encode(), Chat)
