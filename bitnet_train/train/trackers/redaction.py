"""Secrets leave a configuration before anything else sees it.

A value goes when its key says so (`hf_token`, `wandb.api_key`, `password` ...), and a part of a text goes when it looks
like a secret on its own: tokens of Hugging Face, wandb, GitHub, OpenAI, AWS and Slack, bearer headers, private keys,
the `user:password@` of an address, `name=value` where the name is such a key. A run of 40 hexadecimal digits is an old
wandb key; under a key that speaks of a revision, commit or hash it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

REDACTED = "[redacted]"

_WORDS = r"token|api[_-]?key|apikey|access[_-]?key|private[_-]?key|password|passwd|passphrase|secret|credentials?"
_SECRET_KEY = re.compile(rf"(?i)(?:^|[^a-z])(?:{_WORDS}|auth|authorization)$")
_MODEL_TOKEN = re.compile(r"(?i)(?:^|[^a-z])(?:bos|eos|pad|unk|sep|cls|mask|image)_token$")
_HASH_KEY = re.compile(r"(?i)revision|commit|sha|hash|digest")
_HEX_KEY = re.compile(r"\b[0-9a-fA-F]{40}\b")
_PATTERNS = (
    re.compile(r"\bhf_[A-Za-z0-9]{8,}"),
    re.compile(r"\bwandb_v1_\w{8,}"),
    re.compile(r"\b(?:ghp|gho|ghs|github_pat)_\w{16,}"),
    re.compile(r"\bsk-[\w-]{16,}"),
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(r"\bxox[abprs]-[\w-]{8,}"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"),
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(r"(?<=://)[^/\s@]+(?=@)"),
    re.compile(rf"(?i)(?<![a-z])(?:{_WORDS})\s*[=:]\s*\S+"),
)


def redact(config: Any, key: str = "") -> Any:
    """Return a copy of nested mappings, lists, dataclasses and values with every secret replaced by `[redacted]`."""
    if is_dataclass(config) and not isinstance(config, type):
        return redact(asdict(config), key)
    if isinstance(config, Mapping):
        return {redact_text(str(name)): redact(value, str(name)) for name, value in config.items()}
    if config is None or isinstance(config, bool):
        return config
    if _SECRET_KEY.search(_snake(key)) and not _MODEL_TOKEN.search(_snake(key)):
        return REDACTED
    if isinstance(config, list | tuple | set | frozenset):
        return [redact(value, key) for value in config]
    return config if isinstance(config, int | float) else redact_text(str(config), key)


def redact_text(text: str, key: str = "") -> str:
    """Return `text` with everything that looks like a secret replaced."""
    for pattern in _PATTERNS:
        text = pattern.sub(REDACTED, text)
    return text if _HASH_KEY.search(key) else _HEX_KEY.sub(REDACTED, text)


def _snake(key: str) -> str:
    """Turn `apiKey` and `wandbToken` into `api_key` and `wandb_token`; leave `API_KEY` alone."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key)
