"""From the name of a model to an engine: native where the packed folder fits it, torch for everything that loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitnet_train.errors import ConfigError
from bitnet_train.importers.found import find_model
from bitnet_train.packed.looks_packed import looks_packed
from bitnet_train.runtime.native.support import reason_against, require_native_cache
from bitnet_train.serve.worker.engine import Engine, NativeEngine

_NOT_PACKED = "it is no packed folder"


@dataclass(frozen=True)
class Wanted:
    """A model as `model.source` names one, and how it is to be held."""

    source: str
    engine: str = "auto"
    threads: int | None = None
    most_tokens: int | None = None
    cache_dtype: str = "float32"


@dataclass(frozen=True)
class Opened:
    """A model that is ready, and why torch computes it, if it does."""

    engine: Engine
    reason: str | None


def open_engine(wanted: Wanted) -> Opened:
    """Load a model.

    Raises ConfigError where `engine` is native and the model does not fit it, and what the readers of models raise.
    """
    folder = packed_folder_of(wanted.source)
    reason = _NOT_PACKED if folder is None else reason_against(folder)
    if wanted.engine == "native" and reason is not None:
        raise ConfigError(
            f"`generate.engine=native`: {wanted.source} does not fit: {reason}. Set it to auto, or export the model."
        )
    require_native_cache(wanted.cache_dtype, wanted.source, "`generate.engine=hf`" if wanted.engine == "hf" else reason)
    if reason is None and wanted.engine != "hf" and folder is not None:
        return Opened(_native(folder, wanted), None)
    return Opened(_by_torch(folder, wanted), reason or "`generate.engine=hf`")


def packed_folder_of(source: str) -> Path | None:
    """Return the packed folder that a source is, or that the run has which it is; None for other models."""
    found = find_model(source)
    if found.kind == "packed":
        return found.path
    artefact = found.path / "artefact"
    return artefact if found.kind == "run" and looks_packed(artefact) else None


def _native(folder: Path, wanted: Wanted) -> Engine:
    from bitnet_train.runtime.native.model import NativeModel

    model = NativeModel.load(
        folder, num_threads=wanted.threads, max_tokens=wanted.most_tokens, cache_dtype=wanted.cache_dtype
    )
    return NativeEngine(model)


def _by_torch(folder: Path | None, wanted: Wanted) -> Engine:
    import torch

    from bitnet_train.runtime.native.tokens import TokensOfTransformers
    from bitnet_train.serve.worker.torch_engine import TorchEngine

    if wanted.threads is not None:
        torch.set_num_threads(wanted.threads)
    model, tokenizer = _packed(folder) if folder is not None else _imported(wanted.source)
    return TorchEngine(model, TokensOfTransformers(tokenizer), wanted.most_tokens)


def _packed(folder: Path) -> tuple[Any, Any]:
    from bitnet_train.runtime.load import load, load_tokenizer

    return load(folder), load_tokenizer(folder)


def _imported(source: str) -> tuple[Any, Any]:
    from bitnet_train.importers.load import load_pretrained

    loaded = load_pretrained(source)
    return loaded.model, loaded.tokenizer
