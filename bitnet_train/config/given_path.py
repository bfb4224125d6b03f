"""A path that is given decides where rows come from.

`data.path=chats.jsonl`, or a `data.mix`, over a recipe of the standard library means `data.source=files` too. The kind
of row that a choice of `data` sets belongs to its source; with another source the kind is found anew.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bitnet_train.config.layers import Layer
from bitnet_train.config.path_words import DATA_SUFFIX
from bitnet_train.config.values import COMMAND_LINE
from bitnet_train.errors import ConfigError
from bitnet_train.word_as_path import is_there, path_of

DECIDED = "`data.path` is given"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def decided_by_path(stack: Sequence[Layer], chosen: Collection[str], own_recipe: str | None) -> Layer | None:
    """Return what a path on the command line, or in a recipe file of the user's own, decides; None = nothing.

    stack: every layer, weakest first. chosen: the groups of which the command line chooses a file.
    own_recipe: the name of the user's own recipe file.
    Raises ConfigError where the path is no file but looks like a data set of the hub.
    """
    setters = {key: _last(stack, key) for key in ("path", "mix", "source", "kind")}
    own = {COMMAND_LINE, own_recipe}
    given = [found for found in (setters["path"], setters["mix"]) if found and found[0].origin in own and found[1]]
    if not given:
        return None
    path, source = given[0], setters["source"]
    decided: dict[str, Any] = {}
    reads = source[1] if source else "stdlib"
    if reads == "stdlib" and "data" not in chosen and not (source and source[0].origin in own):
        _refuse_hub_id(path[1])
        decided["source"] = reads = "files"
    kind = setters["kind"]
    if kind and kind[0].origin not in own and kind[0].values["data"].get("source", reads) != reads:
        decided["kind"] = "auto"
    return Layer(DECIDED, {"data": decided}) if decided else None


def _last(stack: Sequence[Layer], key: str) -> tuple[Layer, Any] | None:
    """Return the last layer that sets `data.<key>`, with the value."""
    for layer in reversed(stack):
        section = layer.values.get("data")
        if isinstance(section, Mapping) and key in section:
            return layer, section[key]
    return None


def _refuse_hub_id(path: Any) -> None:
    is_id = isinstance(path, str) and _HUB_ID.fullmatch(path) and not DATA_SUFFIX.search(path)
    if is_id and not is_there(path_of(path)):
        raise ConfigError(
            f"`data.path={path}`: there is no such file or folder. A data set of the hub is asked for with "
            f"`data=hub data.path={path}`."
        )
