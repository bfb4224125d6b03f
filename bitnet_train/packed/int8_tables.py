"""Which tables are written in 8, 5 or 4 bits: those that trained so, and what `export.embedding` and `head` say.

A table that trained rounded (`model.rounded_table`) is written in its bits, which is exact. Of others `exact`, the
default, keeps floats, and `int8`, `int5` and `int4` round here what trained otherwise; `validate` holds such a folder
against the trained model with the same rounding. A 1-bit table is neither. The embedding and the head of a tied pair
are one table: both keys must then say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel

from bitnet_train.errors import ConfigError
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.convert import is_tied
from bitnet_train.model.rounded_table import ROUNDED
from bitnet_train.quant.scheme import TABLE_BITS, LayerKind

TABLE_FORMATS = ("exact", *TABLE_BITS)
"""What `export.embedding` and `export.head` may say of a table that is not 1-bit."""

_BITS: Mapping[str, int] = {**TABLE_BITS}

_KEYS: dict[LayerKind, str] = {"embedding": "export.embedding", "linear": "export.head"}


class ToWrite(NamedTuple):
    """A module to write as a table of so many bits."""

    module: nn.Module
    bits: int


def int8_tables(model: PreTrainedModel, *, embedding: str, head: str) -> dict[str, ToWrite]:
    """Return by name the modules to write as tables of int8 codes: the token embedding first, then the head.

    Raises ConfigError for an unknown value, a table that is 1-bit or no plain one, and for a tied pair that is asked to
    be two things.
    """
    found: dict[str, ToWrite] = {}
    asked: dict[LayerKind, str] = {"embedding": embedding, "linear": head}
    modules: dict[LayerKind, Any] = {
        "embedding": model.get_input_embeddings(),
        "linear": model.get_output_embeddings(),
    }
    for kind, value in asked.items():
        if value not in TABLE_FORMATS:
            raise ConfigError(f"`{_KEYS[kind]}={value}` is not a known choice. Allowed: {', '.join(TABLE_FORMATS)}.")
    trained = {kind for kind, module in modules.items() if isinstance(module, ROUNDED)}
    if embedding != head and is_tied(model) and not trained:
        raise ConfigError(
            f"`export.embedding={embedding}` and `export.head={head}` ask for two tables, but this model ties them: it "
            "has one. Give both keys the same value."
        )
    for kind, value in asked.items():
        if value != "exact" or kind in trained:
            module = modules[kind]
            name = _name_of(model, module)
            _require_float_table(kind, value, name, module)
            found[name] = ToWrite(module, _BITS[module.stored if kind in trained else value])
    return found


def table_kind(module: nn.Module) -> LayerKind:
    """Return what a module is used as."""
    return "embedding" if isinstance(module, nn.Embedding) else "linear"


def _name_of(model: nn.Module, module: nn.Module | None) -> str:
    return next((name for name, candidate in model.named_modules() if candidate is module), "")


def _require_float_table(kind: LayerKind, value: str, name: str, module: nn.Module | None) -> None:
    key = f"`{_KEYS[kind]}={value}`"
    if isinstance(module, BitLayer):
        raise ConfigError(
            f"{key}, but {name} is 1-bit already ({module.weight_scheme.describe()}), which is smaller. Leave "
            f"`{_KEYS[kind]}` at exact: it keeps every layer as it was trained."
        )
    plain = nn.Embedding if kind == "embedding" else nn.Linear
    if type(module) not in (plain, *ROUNDED) or not name:
        raise ConfigError(
            f"{key}, but the {'token embedding' if kind == 'embedding' else 'head'} of this model is "
            f"{type(module).__name__}: only a plain nn.{plain.__name__} can be a table of few bits, as another may do "
            f"more. Leave `{_KEYS[kind]}` at exact."
        )
