"""Which tables of a model are written in 8 bits: those that trained so, and what `export.embedding` and `head` say.

A table that trained rounded to int8 (`model.rounded_table`) is written as int8, which is exact. Of others `exact`, the
default, keeps floats, and `int8` rounds here what trained otherwise; `validate` holds such a folder against the trained
model with the same rounding. A 1-bit table is neither. The embedding and the head of a tied pair are one table: both
keys must then say the same.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from bitnet_train.errors import ConfigError
from bitnet_train.model.bit_layer import BitLayer
from bitnet_train.model.convert import is_tied
from bitnet_train.model.rounded_table import ROUNDED
from bitnet_train.quant.scheme import LayerKind

TABLE_FORMATS = ("exact", "int8")
"""What `export.embedding` and `export.head` may say of a table that is not 1-bit."""

_KEYS: dict[LayerKind, str] = {"embedding": "export.embedding", "linear": "export.head"}


def int8_tables(model: PreTrainedModel, *, embedding: str, head: str) -> dict[str, nn.Module]:
    """Return by name the modules to write as int8 tables: the token embedding first, then the head.

    Raises ConfigError for an unknown value, a table that is 1-bit or no plain one, and for a tied pair that is asked to
    be two things.
    """
    found: dict[str, nn.Module] = {}
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
            "has one. Set both keys to int8, or both to exact."
        )
    for kind, value in asked.items():
        if value == "int8" or kind in trained:
            name = _name_of(model, modules[kind])
            _require_float_table(kind, name, modules[kind])
            found[name] = modules[kind]
    return found


def table_kind(module: nn.Module) -> LayerKind:
    """Return what a module is used as."""
    return "embedding" if isinstance(module, nn.Embedding) else "linear"


def _name_of(model: nn.Module, module: nn.Module | None) -> str:
    return next((name for name, candidate in model.named_modules() if candidate is module), "")


def _require_float_table(kind: LayerKind, name: str, module: nn.Module | None) -> None:
    key = f"`{_KEYS[kind]}=int8`"
    if isinstance(module, BitLayer):
        raise ConfigError(
            f"{key}, but {name} is 1-bit already ({module.weight_scheme.describe()}), which is smaller. Leave "
            f"`{_KEYS[kind]}` at exact: it keeps every layer as it was trained."
        )
    plain = nn.Embedding if kind == "embedding" else nn.Linear
    if type(module) not in (plain, *ROUNDED) or not name:
        raise ConfigError(
            f"{key}, but the {'token embedding' if kind == 'embedding' else 'head'} of this model is "
            f"{type(module).__name__}: only a plain nn.{plain.__name__} can be an int8 table, as another class may do "
            f"more. Leave `{_KEYS[kind]}` at exact."
        )
