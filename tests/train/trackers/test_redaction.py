from __future__ import annotations

from dataclasses import dataclass

import pytest

from bitnet_train.train.trackers.redaction import REDACTED, redact

HEX = "0123456789abcdef0123456789abcdef01234567"

SECRETS = [
    {"hf_token": "plain"},
    {"token": "plain"},
    {"logger": {"api_key": "plain"}},
    {"WANDB_API_KEY": "plain"},
    {"apiKey": "plain"},
    {"wandbToken": "plain"},
    {"password": 12345},
    {"db": [{"passwd": "plain"}]},
    {"client_secret": b"plain"},
    {"Authorization": "Basic plain"},
    {"tokens": {"token": ["plain", "plain"]}},
    {"note": f"hf_{'a1B2' * 8}"},
    {"note": HEX},
    {"note": "https://user:plain@example.org/repo.git"},
    {"overrides": ["model=tiny", "logger.api_key=plain"]},
    {"header": "Bearer plain"},
    {"x": "ghp_" + "a1" * 18},
    {"x": "sk-" + "a1" * 18},
    {"x": "-----BEGIN RSA PRIVATE KEY-----\nplain\n-----END RSA PRIVATE KEY-----"},
    {f"hf_{'a1B2' * 8}": 1},
]

KEPT = [
    {"context_tokens": 256, "max_tokens": 3, "num_tokens": "many"},
    {"pad_token": "<pad>", "eos_token": "</s>"},
    {"tokenizer": "tiny", "token_cache": "runs/x/cache"},
    {"revision": HEX, "commit": HEX, "codes_sha256": HEX},
    {"path": "https://example.org/data", "lr": 3e-4, "seed": 0, "flag": True, "none": None},
    {"author": "someone", "secretary": "someone else"},
    {"token": None, "use_token": False},
]


@pytest.mark.parametrize("config", SECRETS)
def test_secrets_go(config: dict) -> None:
    text = str(redact(config))
    assert REDACTED in text
    assert "plain" not in text
    assert "12345" not in text
    assert "a1" not in text
    assert HEX not in text


@pytest.mark.parametrize("config", KEPT)
def test_everything_else_stays(config: dict) -> None:
    assert redact(config) == config


def test_the_given_configuration_is_not_changed() -> None:
    config = {"a": {"token": "plain"}, "b": ["x"]}
    redact(config)
    assert config == {"a": {"token": "plain"}, "b": ["x"]}


def test_an_address_keeps_its_host() -> None:
    assert redact({"url": "https://user:plain@example.org/x"})["url"] == f"https://{REDACTED}@example.org/x"


def test_dataclasses_are_looked_into() -> None:
    @dataclass
    class Login:
        password: str = "plain"
        name: str = "me"

    assert redact({"login": Login()}) == {"login": {"password": REDACTED, "name": "me"}}
