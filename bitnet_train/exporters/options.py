"""What is written at the end, and what each format lets its user choose: the section `export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bitnet_train.settings import part_of, require_allowed, setting

FormatName = Literal["packed", "gguf", "hf_bitnet", "plain", "c_array", "gguf_adapter"]
FurtherName = Literal["gguf", "hf_bitnet", "plain", "c_array"]
StoredTable = Literal["exact", "int8", "int5", "int4"]
BlockType = Literal["auto", "q1_0", "q2_0", "tq1_0", "tq2_0", "q4_0", "q5_0"]
TableType = Literal["exact", "f16", "q8_0"]
LinearClass = Literal["autobitlinear", "bitlinear"]
DenseType = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class ExportOptions:
    """Choices of all formats; each reads its own."""

    type: BlockType = setting(
        "auto",
        "gguf: block type of the 1-bit layers; auto = the smallest that all of them fit",
    )
    tables: TableType = setting("exact", "gguf: a float embedding or head as it is stored, or rounded")
    pre_tokenizer: str | None = setting(None, "gguf: llama.cpp's name of the pre-tokenizer; null = found by its rules")
    modelfile: bool = setting(False, "gguf: write an Ollama `Modelfile` beside the file")
    linear_class: LinearClass = setting("autobitlinear", "hf_bitnet: convention of `weight_scale`")
    dtype: DenseType = setting("bfloat16", "plain: type of the dense weights")

    def __post_init__(self) -> None:
        require_allowed(self, "export")


@dataclass(frozen=True)
class _Written:
    format: FormatName = setting(
        "packed",
        "packed = our own folder, which the others are written from; gguf = llama.cpp; hf_bitnet = transformers "
        "alone; plain = dense weights; c_array = firmware; gguf_adapter = the adapter of `lora_outside`",
    )
    also: tuple[FurtherName, ...] = setting((), "further formats to write, each beside the packed folder")
    force: bool = setting(False, "replace an artefact that is there already")
    out: str | None = setting(
        None, "folder to write; null = exports/FORMAT in the run, or beside the packed folder", path=True
    )
    embedding: StoredTable = setting(
        "exact", "a token embedding that is not 1-bit: as trained, or rounded to so many bits"
    )
    head: StoredTable = setting("exact", "a head that is not 1-bit; where it is tied to the embedding, both are one")


@dataclass(frozen=True)
class ExportConfig(ExportOptions, _Written):  # fields of the last come first
    """What is written at the end."""

    push_to_hub: str | None = setting(
        None, "OWNER/NAME on the Hugging Face hub to upload the folder to; null = nowhere"
    )
    hub_private: bool = setting(True, "whether a repository that the upload makes is private; one that is there stays")

    @property
    def options(self) -> ExportOptions:
        """The choices of the formats alone."""
        return part_of(ExportOptions, self)
