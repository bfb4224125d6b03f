"""Which tokens begin, end and pad a text, whether they are added by themselves, and the chat template.

What is put around a text is what the post-processor of `tokenizer.json` does; ids come from `tokenizer_config.json`,
then from `config.json`. A second id that ends a text (`generation_config.json`), such as the end of a turn, goes out as
`tokenizer.ggml.eot_token_id`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.pre_tokenizer import flatten
from bitnet_train.exporters.packed_source import PackedSource

if TYPE_CHECKING:
    from gguf import GGUFWriter

_NAMES = ("bos", "eos", "unk", "pad")
_PLAIN_PROCESSORS = ("ByteLevel", "TemplateProcessing")


@dataclass(frozen=True)
class SpecialTokens:
    """Ids by name (bos, eos, unk, pad, eot), what is added around a text, and Hugging Face's chat template."""

    ids: dict[str, int] = field(default_factory=dict)
    add_bos: bool = False
    add_eos: bool = False
    chat_template: str | list[dict[str, str]] | None = None

    def add(self, writer: GGUFWriter) -> None:
        """Write the keys."""
        for name, number in self.ids.items():
            getattr(writer, f"add_{name}_token_id")(number)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def read_special_tokens(source: PackedSource, tokenizer: Mapping[str, Any]) -> SpecialTokens:
    """Read the special tokens of a packed folder. Raises FormatError for a frame that llama.cpp cannot add."""
    settings = _read_json(source, "tokenizer_config.json")
    numbers = {str(added["content"]): int(added["id"]) for added in tokenizer.get("added_tokens") or []}
    numbers = {**tokenizer["model"]["vocab"], **numbers}
    ids = {name: number for name in _NAMES if (number := _id(name, settings, source.config, numbers)) is not None}
    before, after = _frame(tokenizer)
    if before:
        ids["bos"] = numbers[before]
    if after:
        ids["eos"] = numbers[after]
    ends = _read_json(source, "generation_config.json").get("eos_token_id")
    others = [end for end in ends if end != ids.get("eos")] if isinstance(ends, list) else []
    if others:
        ids["eot"] = int(others[0])
    return SpecialTokens(ids, bool(before), bool(after), _chat_template(source, settings))


def _id(name: str, settings: Mapping[str, Any], config: Mapping[str, Any], numbers: Mapping[str, int]) -> int | None:
    token = settings.get(f"{name}_token")
    text = token.get("content") if isinstance(token, Mapping) else token
    if isinstance(text, str) and text in numbers:
        return numbers[text]
    number = config.get(f"{name}_token_id")
    return number if isinstance(number, int) else None


def _frame(tokenizer: Mapping[str, Any]) -> tuple[str, str]:
    """The tokens that the post-processor puts before and after a text; empty where it puts none."""
    before, after = "", ""
    for part in flatten(tokenizer.get("post_processor"), "processors"):
        if part.get("type") not in _PLAIN_PROCESSORS:
            raise FormatError(
                f"The tokenizer frames a text with {part.get('type')}, which is not known here. "
                "Use another `export.format`."
            )
        if part.get("type") == "TemplateProcessing":
            before, after = _around(part["single"])
    return before, after


def _around(template: list[Mapping[str, Any]]) -> tuple[str, str]:
    places = ["SpecialToken" not in piece for piece in template]
    text = places.index(True)
    before = [piece["SpecialToken"]["id"] for piece in template[:text]]
    after = [piece["SpecialToken"]["id"] for piece in template[text + 1 :] if "SpecialToken" in piece]
    if len(before) > 1 or len(after) > 1:
        raise FormatError(
            f"The tokenizer puts {before} before a text and {after} after it; llama.cpp adds one token at most. "
            "Use another `export.format`."
        )
    return "".join(before), "".join(after)


def _chat_template(source: PackedSource, settings: Mapping[str, Any]) -> str | list[dict[str, str]] | None:
    path = source.companion("chat_template.jinja")
    return path.read_text(encoding="utf-8") if path is not None else settings.get("chat_template")


def _read_json(source: PackedSource, name: str) -> dict[str, Any]:
    path = source.companion(name)
    return {} if path is None else json.loads(path.read_text(encoding="utf-8"))
