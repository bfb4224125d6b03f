"""The settings of the data half of training; keys are `data.<field>`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from bitnet_train.errors import ConfigError
from bitnet_train.train.data.mix import read_mix
from bitnet_train.train.data.row_shape import FieldNames
from bitnet_train.train.data.self_corpus import SelfCorpusConfig

SourceName = Literal["stdlib", "files", "hub", "self"]
KindName = Literal["auto", "text", "chat", "instruction", "completion"]
LoneSurrogates = Literal["refuse", "replace"]
PackingName = Literal["auto", "always", "never"]

SOURCES: tuple[SourceName, ...] = ("stdlib", "files", "hub", "self")
KINDS: tuple[KindName, ...] = ("auto", "text", "chat", "instruction", "completion")
PACKING: tuple[PackingName, ...] = ("auto", "always", "never")


@dataclass(frozen=True)
class DataConfig:
    """What to train on and how it is cut into rows. Raises ConfigError on values that cannot work."""

    source: SourceName = "stdlib"
    path: str | None = None  # files: file, folder or glob; hub: data-set id; self: optional prompt texts
    mix: tuple[dict[str, Any], ...] = ()  # files: several paths with weights, instead of `path`; see `mix.read_mix`
    validation_path: str | None = None  # files: held-out rows of their own, instead of `validation_fraction`
    name: str | None = None  # hub: configuration of the data set
    split: str = "train"  # hub
    validation_split: str | None = None  # hub: instead of `validation_fraction`
    kind: KindName = "auto"  # auto: by the fields of the first row; completion: prompt and answer without a template
    text_field: str | None = None  # fields, None = found by their usual names
    messages_field: str | None = None
    prompt_field: str | None = None
    input_field: str | None = None
    answer_field: str | None = None
    system_field: str | None = None
    chat_template_variables: dict[str, Any] = field(default_factory=dict)  # given to the chat template
    lone_surrogates: LoneSurrogates = "refuse"  # half a UTF-16 pair in a text; replace = read U+FFFD
    context_tokens: int = 256  # tokens per row
    min_tokens: int = 16  # text: shorter windows are dropped
    validation_fraction: float = 0.05  # share of the rows held out, by a hash of their content
    max_documents: int | None = None  # read no more than this; hub data is then streamed
    max_train_rows: int | None = None  # a fixed random subset of the rows
    max_validation_rows: int | None = None
    packing: PackingName = "auto"  # several documents in a row: auto = where it helps and the model keeps them apart
    crop_padding: bool = True  # cut the columns that are padding in a whole batch
    self_corpus: SelfCorpusConfig = field(default_factory=SelfCorpusConfig)

    def __post_init__(self) -> None:
        _one_of("source", self.source, SOURCES)
        _one_of("kind", self.kind, KINDS)
        _one_of("packing", self.packing, PACKING)
        _one_of("lone_surrogates", self.lone_surrogates, get_args(LoneSurrogates))
        read_mix(self.mix, KINDS)
        if self.source in ("files", "hub") and not self.path and not self.mix:
            raise ConfigError(f"`data.source={self.source}` needs `data.path`: the files, or the data set's id.")
        _at_least("context_tokens", self.context_tokens, 8)
        for name in ("max_documents", "max_train_rows", "max_validation_rows"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        if not 2 <= self.min_tokens <= self.context_tokens:
            raise ConfigError(
                f"`data.min_tokens={self.min_tokens}` must lie in 2 ... context_tokens={self.context_tokens}."
            )
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(f"`data.validation_fraction={self.validation_fraction}` must lie in [0, 1).")

    @property
    def field_names(self) -> FieldNames:
        """The field names given, as the row reader takes them."""
        return FieldNames(
            text=self.text_field,
            messages=self.messages_field,
            prompt=self.prompt_field,
            input=self.input_field,
            answer=self.answer_field,
            system=self.system_field,
        )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"`data.{name}={value}` is unknown. Allowed: {', '.join(allowed)}.")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"`data.{name}={value}` must be at least {least}.")
