"""Which tokens begin, end and pad a text, whether they are added by themselves, and the chat template.

What is put around a text is what the post-processor of `tokenizer.json` does; ids come from `tokenizer_config.json`,
then from `config.json`. Every further id that ends a text (`generation_config.json`), such as the end of a turn, goes
out as `tokenizer.ggml.eot_token_id` and `eom_token_id`, those of the chat template first: llama.cpp ends at each of the
three. Of more, those that it knows by their names need no key; another it cannot be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.pre_tokenizer import flatten
from bitnet_train.importers.gguf.generation import END_NAMES
from bitnet_train.json_text import parse_json
from bitnet_train.packed.source import PackedSource

if TYPE_CHECKING:
    from gguf import GGUFWriter

_NAMES = ("bos", "eos", "unk", "pad")
_PLAIN_PROCESSORS = ("ByteLevel", "TemplateProcessing")


@dataclass(frozen=True)
class SpecialTokens:
    """Ids by name (bos, eos, unk, pad, eot, eom), what is added around a text, and Hugging Face's chat template."""

    ids: dict[str, int] = field(default_factory=dict)
    add_bos: bool = False
    add_eos: bool = False
    chat_template: str | list[dict[str, str]] | None = None
    lost_ends: tuple[str, ...] = ()
    """Tokens that end a text and that llama.cpp cannot be told."""
    end_texts: tuple[str, ...] = ()
    """All tokens that end a text."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Special tokens by the names that chat templates have for them, such as `bos_token`."""

    @property
    def default_template(self) -> str | None:
        """The chat template; of several, the one that is called so."""
        if isinstance(self.chat_template, list):
            return next((each["template"] for each in self.chat_template if each.get("name") == "default"), None)
        return self.chat_template

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
    path = source.companion("tokenizer_config.json")
    settings = {} if path is None else parse_json(path.read_text(encoding="utf-8"))
    numbers = {str(added["content"]): int(added["id"]) for added in tokenizer.get("added_tokens") or []}
    numbers = {**tokenizer["model"]["vocab"], **numbers}
    ids = {name: number for name in _NAMES if (number := _id(name, settings, source.config, numbers)) is not None}
    before, after = _frame(tokenizer)
    if before:
        ids["bos"] = numbers[before]
    if after:
        ids["eos"] = numbers[after]
    template = _chat_template(source, settings)
    texts = {number: text for text, number in numbers.items()}
    ends, lost = _place_ends([end for end in source.end_tokens if end in texts], ids, texts, str(template))
    return SpecialTokens(
        {**ids, **ends},
        bool(before),
        bool(after),
        template,
        lost,
        tuple(texts[end] for end in source.end_tokens if end in texts),
        {f"{name}_token": texts[number] for name, number in ids.items() if number in texts},
    )


def _id(name: str, settings: Mapping[str, Any], config: Mapping[str, Any], numbers: Mapping[str, int]) -> int | None:
    token = settings.get(f"{name}_token")
    text = token.get("content") if isinstance(token, Mapping) else token
    if isinstance(text, str) and text in numbers:
        return numbers[text]
    number = config.get(f"{name}_token_id")
    return number if isinstance(number, int) else None


def _place_ends(
    ends: Sequence[int], ids: Mapping[str, int], texts: Mapping[int, str], template: str
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Give each token that ends a text a key; return the keys, and the texts of those that llama.cpp cannot be told."""
    others = [end for end in ends if end != ids.get("eos")]
    places = [name for name in ("eos", "eot", "eom") if name not in ids]
    is_crowded = len(others) > len(places)
    others.sort(key=lambda end: (is_crowded and texts[end] in END_NAMES, texts[end] not in template))
    without = [texts[end] for end in others[len(places) :] if texts[end] not in END_NAMES]
    return dict(zip(places, others, strict=False)), tuple(without)


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
