"""Bodies that are wrong are refused by the field that is wrong, before anything is done."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serve.playground.conftest import Playground

WRONG = [
    ({"kind": "dance"}, "kind"),
    ({"kind": ["swap"]}, "kind"),
    ({"kind": "swap", "choice": {}}, "model"),
    ({"kind": "swap", "model": "MODEL", "choice": []}, "choice"),
    ({"kind": "swap", "model": "MODEL", "choice": {"lm_head": 1}}, "choice.lm_head"),
    ({"kind": "swap", "model": "MODEL", "choice": {}, "more": 1}, "more"),
    ({"kind": "swap", "model": "MODEL", "choice": {}, "text": "x" * 200_001}, "text"),
    ({"kind": "swap", "model": "MODEL", "choice": {"no.such.layer": "binary"}}, "choice"),
    ({"kind": "swap", "model": "MODEL", "choice": {"lm_head": "1bit"}}, "choice"),
    ({"kind": "continue", "model": "MODEL", "choice": {}, "prompt": ""}, "prompt"),
    ({"kind": "continue", "model": "MODEL", "choice": {}, "prompt": "a", "max_new_tokens": 0}, "max_new_tokens"),
    ({"kind": "continue", "model": "MODEL", "choice": {}, "prompt": "a", "max_new_tokens": 10**9}, "max_new_tokens"),
    ({"kind": "continue", "model": "MODEL", "choice": {}, "prompt": "a", "max_new_tokens": "5"}, "max_new_tokens"),
    ({"kind": "continue", "model": "MODEL", "choice": {}, "prompt": "a", "temperature": -1}, "temperature"),
    ({"kind": "continue", "model": "MODEL", "choice": {}, "prompt": "a", "seed": 1 << 64}, "seed"),
    ({"kind": "run", "recipe": "quickstart", "overrides": "a=b"}, "overrides"),
]


@pytest.mark.parametrize(("body", "field"), WRONG)
def test_a_wrong_field_is_named(playground: Playground, tiny: dict[str, Any], body: Any, field: str) -> None:
    answer = playground.client.post("/jobs", content=json.dumps(body).replace('"MODEL"', json.dumps(tiny["id"])))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"kind": NaN}', b"[" * 100_000, b"\xff\xfe\x00", b'{"a": 1' + b"0" * 9999]
)
def test_a_body_that_is_no_object_is_refused(playground: Playground, content: bytes) -> None:
    answer = playground.client.post("/jobs", content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_a_prompt_of_ten_megabytes_is_refused(playground: Playground, tiny: dict[str, Any]) -> None:
    answer = playground.ask(kind="continue", model=tiny["id"], choice={}, prompt="a" * 10_000_000)
    assert answer.status_code == 413


def test_a_model_that_is_not_there_is_not_found(playground: Playground) -> None:
    assert playground.ask(kind="bearing", model="nothing").status_code == 404


@pytest.mark.parametrize("after", ["-1", "x", "1" * 30])
def test_a_place_in_the_events_is_a_number(playground: Playground, tiny: dict[str, Any], after: str) -> None:
    job = playground.done(kind="swap", model=tiny["id"], choice={})
    assert playground.client.get(f"/jobs/{job['id']}/events", params={"after": after}).status_code == 400
