"""The rows of a run: of one data set, or of the data sets of a mix one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bitnet_train.errors import DataError
from bitnet_train.train.data.chunk import TokenRows, concatenate
from bitnet_train.train.data.mix import Mix
from bitnet_train.train.data.mix_parts import MixPart, read_mix
from bitnet_train.train.data.packing import Layout, PackedRows, pack_where_it_helps
from bitnet_train.train.data.settings import KINDS, DataConfig
from bitnet_train.train.data.token_cache import SPLITS, digest

Facts = dict[str, Any]
Loader = Callable[[DataConfig], tuple[dict[str, TokenRows], Facts]]


@dataclass(frozen=True)
class RunRows:
    """Rows by split, one document each; those to train on as they are packed, None where they are not; and facts."""

    alone: dict[str, TokenRows]
    packed: PackedRows | None
    facts: Facts
    mix: Mix | None = None


def run_rows(config: DataConfig, load: Loader, model: Any | None) -> RunRows:
    """Load, limit and pack the rows of `data`, or of every entry of `data.mix`. Raises DataError; see `load`."""
    if not config.mix:
        return _of_one(config, load, model)
    parts = read_mix(config.mix, KINDS)
    return _join([_of_one(_config_of(part, config), load, model) for part in parts], parts, config.context_tokens)


def _config_of(part: MixPart, config: DataConfig) -> DataConfig:
    own: dict[str, Any] = {"path": part.path, "validation_path": part.validation_path, "kind": part.kind or config.kind}
    return replace(config, mix=(), **own)


def _of_one(config: DataConfig, load: Loader, model: Any | None) -> RunRows:
    made, facts = load(config)
    limits = {"train": config.max_train_rows, "validation": config.max_validation_rows}
    alone = {split: _subset(made[split], limits[split]) for split in SPLITS}
    packed, layout = pack_where_it_helps(alone["train"], config.packing, model)
    return RunRows(alone, packed, {**facts, "layout": asdict(layout)})


def _subset(rows: TokenRows, limit: int | None) -> TokenRows:
    """Return a fixed random subset, in order; the same for every seed, so that runs can be compared."""
    if limit is None or limit >= len(rows):
        return rows
    return rows.select(np.sort(np.random.default_rng(0).permutation(len(rows))[:limit]))


def _join(found: Sequence[RunRows], parts: Sequence[MixPart], row_tokens: int) -> RunRows:
    alone = {split: concatenate([each.alone[split] for each in found]) for split in SPLITS}
    is_packed = any(each.packed is not None for each in found)
    packed = _join_packed(found) if is_packed else None
    trained_on = alone["train"] if packed is None else packed.rows
    rows = [len(each.alone["train"] if each.packed is None else each.packed.rows) for each in found]
    mix = Mix(tuple(rows), tuple(part.weight for part in parts))
    if mix.num_rows < len(parts):
        raise DataError(f"`data.mix` has {len(parts)} data sets and only {mix.num_rows} rows. Add rows.")
    layouts = [Layout(**each.facts["layout"]) for each in found]
    layout = Layout(len(alone["train"]), len(trained_on), trained_on.padding_share, alone["train"].padding_share)
    layout = replace(layout, why_not=next((each.why_not for each in layouts if each.why_not), None))
    return RunRows(alone, packed, {**_joined_facts(found, alone), "layout": asdict(layout), **_of_mix(mix, parts)}, mix)


def _join_packed(found: Sequence[RunRows]) -> PackedRows:
    """Return rows of every data set; those of one that is not packed have a document each."""
    rows, documents, first = [], [], 0
    for each in found:
        train = each.alone["train"]
        layout = [[number] for number in range(len(train))] if each.packed is None else each.packed.documents
        documents += [[first + number for number in row] for row in layout]
        rows.append(train if each.packed is None else each.packed.rows)
        first += len(train)
    return PackedRows(concatenate(rows), documents)


def _joined_facts(found: Sequence[RunRows], alone: dict[str, TokenRows]) -> Facts:
    joined = _joined([each.facts for each in found])
    for split in SPLITS:
        joined[split]["padding_share"] = round(alone[split].padding_share, 6)
    hashes = {name: digest([each.facts[name] for each in found]) for name in ("content_sha256", "cache_key")}
    return {**joined, "path": None, "context_tokens": found[0].facts["context_tokens"], **hashes}


def _of_mix(mix: Mix, parts: Sequence[MixPart]) -> Facts:
    """Return what each data set gives, with its share of the rows of a pass."""
    shares = [share / mix.num_rows for share in mix.shares()]
    rows = zip(parts, mix.part_rows, shares, strict=True)
    return {"mix": [{"path": part.path, "weight": part.weight, "rows": n, "share": share} for part, n, share in rows]}


def _joined(values: Sequence[Any]) -> Any:
    """Return figures added up, lists one after the other, dictionaries key by key, and of words those that differ."""
    first = values[0]
    if isinstance(first, dict):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: _joined([value[name] for value in values if name in value]) for name in names}
    if isinstance(first, list):
        return [item for value in values for item in value]
    if isinstance(first, int | float) and not isinstance(first, bool):
        return sum(values)
    return " and ".join(dict.fromkeys(str(value) for value in values))
