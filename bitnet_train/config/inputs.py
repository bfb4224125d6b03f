"""Models and text that are named and not there: said before anything is loaded or a run directory is made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from bitnet_train.config.schema import Config
from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.importers.found import require_model
from bitnet_train.word_as_path import is_there, path_of

_PATHS = ("path", "validation_path")  # of an entry of `data.mix`
_WILDCARD = re.compile(r"[*?\[]")


def refuse_missing_inputs(config: Config, origins: Mapping[str, str]) -> None:
    """Raise ConfigError for the first of `model.source`, `teacher.source` and the files of `data` that is not there."""
    sources = {"model.source": config.model.source, "teacher.source": config.teacher.source}
    for key, source in sources.items():
        if source is None:
            continue
        try:
            require_model(source, key)
        except ConversionError as error:
            raise ConfigError(str(error)) from error
    for key, path in _text(config):
        if not _WILDCARD.search(path) and not is_there(path_of(path)):
            given = f" ({origins[key]})" if key in origins else ""
            raise ConfigError(
                f"`{key}={path}`{given}: there is no such file or folder ({Path(path).expanduser().absolute()}). Give "
                "a file, a folder of files, or a pattern such as `texts/*.txt`."
            )


def _text(config: Config) -> Iterator[tuple[str, str]]:
    data = config.data
    if data.source != "files":
        return
    named = [("data.path", data.path), ("data.validation_path", data.validation_path)]
    named += [(f"data.mix[{at}].{key}", part.get(key)) for at, part in enumerate(data.mix) for key in _PATHS]
    yield from ((key, str(path)) for key, path in named if path is not None)
