"""What the formats let their user choose; the configuration has the same keys under `export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bitnet_train.errors import ConfigError

TableType = Literal["exact", "f16", "q8_0"]
LinearClass = Literal["autobitlinear", "bitlinear"]
DenseType = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class ExportOptions:
    """Choices of all formats; each reads its own."""

    type: str = "auto"
    """gguf: q1_0, q2_0, tq1_0, tq2_0, or auto: the smallest that every 1-bit layer fits."""
    tables: TableType = "exact"
    """gguf: a float token embedding or head as it is stored, or rounded."""
    pre_tokenizer: str | None = None
    """gguf: llama.cpp's name of the pre-tokenizer, where it is not known by itself."""
    linear_class: LinearClass = "autobitlinear"
    """hf_bitnet: which of transformers' two conventions of `weight_scale`."""
    dtype: DenseType = "bfloat16"
    """plain: the type of the dense weights."""

    def __post_init__(self) -> None:
        for key, allowed in (("tables", TableType), ("linear_class", LinearClass), ("dtype", DenseType)):
            value = getattr(self, key)
            if value not in get_args(allowed):
                raise ConfigError(f"`export.{key}={value}` is not known. Allowed: {', '.join(get_args(allowed))}.")
