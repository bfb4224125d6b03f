"""Recognise the pre-tokenizer of a `tokenizer.json` among those that llama.cpp has under a name. Never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitnet_train.errors import FormatError
from bitnet_train.gguf.pre_tokenizer import KNOWN, Step


def pre_tokenizer_name(tokenizer: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the pre-tokenizer of a byte-level `tokenizer.json`.

    Raises FormatError when it is none of the known ones, with `export.pre_tokenizer` as the way out.
    """
    steps = tuple(_steps(tokenizer.get("pre_tokenizer") or {}))
    key = (steps, bool(tokenizer["model"].get("ignore_merges")))
    if key not in KNOWN:
        described = " then ".join(" ".join(step) for step in steps) or "nothing"
        raise FormatError(
            f"The pre-tokenizer of tokenizer.json ({described}; ignore_merges {key[1]}) is none of those known here: "
            f"{', '.join(KNOWN.values())}. If llama.cpp has it under a name, say so: `export.pre_tokenizer=NAME`; a "
            "wrong name cuts text in other places and spoils the model without an error."
        )
    return KNOWN[key]


def is_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    """Tell whether tokens are written in GPT-2's alphabet of bytes."""
    return any(part.get("type") == "ByteLevel" for part in flatten(tokenizer.get("pre_tokenizer"), "pretokenizers"))


def flatten(part: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """Return the steps of a part of `tokenizer.json`, a Sequence or one step; `key` is where a Sequence has them."""
    if part is None:
        return []
    if part.get("type") == "Sequence":
        return [step for inner in part.get(key) or [] for step in flatten(inner, key)]
    return [part]


def _steps(pre_tokenizer: Mapping[str, Any]) -> list[Step]:
    steps = [_step(part) for part in flatten(pre_tokenizer or None, "pretokenizers")]
    return [step for step in steps if step]


def _step(part: Mapping[str, Any]) -> Step:
    match part:
        case {"type": "ByteLevel", "add_prefix_space": True}:
            return ("bytes, a space before the text",)
        case {"type": "ByteLevel"}:
            return ("bytes",) if part.get("use_regex", True) else ()
        case {"type": "Digits", "individual_digits": True}:
            return ("digits",)
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"} if not part.get("invert"):
            return ("split", str(pattern))
    return (str({key: part[key] for key in sorted(part)}),)
