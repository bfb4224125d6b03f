"""Settings of the data half of training: the sections `data` and `data.self_corpus`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from bitnet_train.errors import ConfigError
from bitnet_train.settings import require_allowed, setting
from bitnet_train.train.data.mix_parts import read_mix
from bitnet_train.train.data.row_shape import FieldNames

SourceName = Literal["stdlib", "files", "hub", "self"]
KindName = Literal["auto", "text", "chat", "instruction", "completion"]
LoneSurrogates = Literal["refuse", "replace"]
PackingName = Literal["auto", "always", "never"]

KINDS: tuple[KindName, ...] = get_args(KindName)


@dataclass(frozen=True)
class SelfCorpusConfig:
    """`data.source=self`: how the full-precision model writes the corpus."""

    documents: int = setting(512, "documents written", at_least=1)
    document_tokens: int = setting(256, "tokens per document, prompt included", at_least=1)
    temperature: float = setting(1.0, "sampling temperature", above=0)
    top_p: float = setting(0.95, "probability mass kept; 1 = the whole distribution", above=0, at_most=1)
    batch_documents: int = setting(32, "documents written together", at_least=1)
    prompt_tokens: int = setting(8, "tokens taken from each prompt text, when `data.path` gives any", at_least=1)
    seed: int = setting(0, "seed of sampling")

    def __post_init__(self) -> None:
        require_allowed(self, "data.self_corpus")
        if self.document_tokens < self.prompt_tokens + 2:
            raise ConfigError(
                f"`data.self_corpus.document_tokens={self.document_tokens}` leaves nothing to write after BOS and"
                f" prompt_tokens={self.prompt_tokens}; it must be at least {self.prompt_tokens + 2}."
            )


@dataclass(frozen=True)
class DataConfig:
    """What the model reads and how it is cut into rows."""

    source: SourceName = setting("stdlib", "where rows come from")
    path: str | None = setting(None, "files: file, folder or glob; hub: dataset id; self: prompt texts", path=True)
    mix: tuple[dict[str, Any], ...] = setting(
        (),
        "files: several data sets, [{path: a.jsonl, weight: 2}, {path: b.txt}]; a weight is a share of the rows "
        "read; an entry may also have kind and validation_path",
    )
    validation_path: str | None = setting(None, "files: held-out rows of their own", path=True)
    name: str | None = setting(None, "hub: configuration name of the dataset")
    split: str = setting("train", "hub: split to train on")
    validation_split: str | None = setting(None, "hub: split to validate on")
    kind: KindName = setting(
        "auto",
        "shape of a row; auto = by its fields; completion = prompt and answer as they stand, without a template",
    )
    text_field: str | None = setting(None, "column of the text; null = found by its usual names, as all columns below")
    messages_field: str | None = setting(None, "column of a chat's messages")
    prompt_field: str | None = setting(None, "column of an instruction")
    input_field: str | None = setting(None, "column of an instruction's input")
    answer_field: str | None = setting(None, "column of an instruction's answer")
    system_field: str | None = setting(None, "column of the system prompt")
    chat_template_variables: dict[str, Any] = setting(
        {}, "variables the chat template is given, such as {enable_thinking: false}"
    )
    lone_surrogates: LoneSurrogates = setting(
        "refuse", "half a UTF-16 pair in a text; replace = read U+FFFD in its place"
    )
    context_tokens: int = setting(256, "tokens per row", at_least=8)
    min_tokens: int = setting(16, "text: windows shorter than this many tokens are dropped", at_least=2)
    validation_fraction: float = setting(
        0.05, "share of rows held out, by a hash of their content", at_least=0, below=1
    )
    max_documents: int | None = setting(None, "documents read at most; null = all", at_least=1)
    max_train_rows: int | None = setting(None, "rows trained on at most; null = all", at_least=1)
    max_validation_rows: int | None = setting(None, "rows held out at most; null = all", at_least=1)
    packing: PackingName = setting(
        "auto",
        "several documents in a row, none of which sees another; auto = where rows become fewer and the model can",
    )
    crop_padding: bool = setting(True, "cut the columns that are padding in a whole batch")
    self_corpus: SelfCorpusConfig = field(default_factory=SelfCorpusConfig)

    def __post_init__(self) -> None:
        require_allowed(self, "data")
        read_mix(self.mix, KINDS)
        if self.source in ("files", "hub") and not self.path and not self.mix:
            raise ConfigError(f"`data.source={self.source}` needs `data.path`: the files, or the data set's id.")
        if self.min_tokens > self.context_tokens:
            raise ConfigError(
                f"`data.min_tokens={self.min_tokens}` must lie in 2 ... context_tokens={self.context_tokens}."
            )

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
