"""`bitnet-train serve`: models that answer in the form of OpenAI's API, each in a process of its own.

A word names a model as `model.source` does: a run, a packed folder, a GGUF file, a Hugging Face folder, `tiny`, or
OWNER/NAME on the hub. It is opened by the worker, when it is first asked.
"""

from __future__ import annotations

import json
import logging
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bitnet_train.config import Config, changed
from bitnet_train.config.compose import compose
from bitnet_train.config.idle import refuse_idle_keys
from bitnet_train.config.unread import refuse_unread_keys
from bitnet_train.errors import ConfigError
from bitnet_train.importers.found import RUN_FILE, Found, find_model
from bitnet_train.importers.source import HUB, settled_source
from bitnet_train.progress import open_console
from bitnet_train.verbs import VERBS, Call
from bitnet_train.word_as_path import path_of

_INSIDE_RUNS = ("artefact", "merged")
_MEGABYTE = 1_000_000
_MOST_SHOWN = 120  # characters of a word that names nothing


def serve(call: Call) -> dict[str, Any]:
    """Serve the models that are named until the process is told to end."""
    _require_packages()
    config = composed(call)
    from bitnet_train.serve.api.app import application
    from bitnet_train.serve.api.server import open_door
    from bitnet_train.serve.api.server import serve as listen
    from bitnet_train.serve.api.writing import Bounds

    settings = config.serve
    sources = _by_name(config, call.words)
    door = open_door(settings)
    address = door.address
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    with tempfile.TemporaryDirectory(prefix="bitnet-train-serve-") as logs:
        starts = {name: _start(config, source, Path(logs) / f"{at}.log") for at, (name, source) in enumerate(sources)}
        bounds = Bounds(settings.most_texts + settings.most_waiting, settings.most_seconds)
        app = application(starts, bounds, settings.most_models)
        with suppress(KeyboardInterrupt):
            listen(
                app, door, settings, lambda: _tell(config, address, list(starts), door.key is not None), app.state.close
            )
    return {"address": address, "models": list(starts)}


def _require_packages() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"Serving needs the package `{error.name}`. Install it: `pip install 'bitnet-train[serve]'`."
        ) from error


def composed(call: Call) -> Config:
    """Return the configuration of a call whose words are models, not a recipe."""
    composed = compose(overrides=call.overrides)
    reads = {name: verb.reads for name, verb in VERBS.items()}
    refuse_unread_keys(composed.config, composed.origins, composed.target, call.verb.name, reads)
    refuse_idle_keys(composed.config, composed.origins, composed.target, call.verb.reads_anyway)
    return changed(composed.config, {"quiet": call.quiet})


def _by_name(config: Config, words: Sequence[str]) -> list[tuple[str, str]]:
    """Return names and sources; ConfigError for one that is none, and for names that do not tell them apart."""
    known, names = models_named(words), list(config.serve.names)
    if not known:
        raise ConfigError("Name what to serve: `bitnet-train serve runs/mine`, or a packed folder, or a GGUF file.")
    if names and len(names) != len(known):
        raise ConfigError(f"`serve.names` has {len(names)} names for {len(known)} models. Give one for each.")
    names = names or [_name(source, found) for source, found in known]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"Two models are called `{twice}`. Tell them apart with `serve.names=[ONE,ANOTHER]`.")
    return list(zip(names, (source for source, _ in known), strict=True))


def models_named(words: Sequence[str]) -> list[tuple[str, Found]]:
    """Return what each word names, as `model.source` has it and as it was found; ConfigError for one that is none."""
    sources = [settled_source(str(path_of(word))) for word in words]
    return [(source, _found(word, source)) for word, source in zip(words, sources, strict=True)]


def _found(word: str, source: str) -> Found:
    found = find_model(source)
    is_named = found.kind != "hub" or "/" in source or word.startswith(HUB)
    if found.kind in ("file", "missing", "empty", "adapter") or not is_named:
        raise ConfigError(
            f"`{word[:_MOST_SHOWN]}` is no model: neither a run, nor a packed folder, a GGUF file, a Hugging Face "
            f"folder, `tiny`, or a model of the hub, OWNER/NAME or {HUB}NAME. `bitnet-train ls runs` lists runs."
        )
    return found


def _name(source: str, found: Found) -> str:
    if found.kind in ("tiny", "hub"):
        return source.removeprefix(HUB)
    path = found.path.resolve()
    inside = path.name in _INSIDE_RUNS and (path.parent / RUN_FILE).is_file()
    place = path.parent if inside else path
    return place.stem if found.kind == "gguf" else place.name


def _start(config: Config, source: str, log: Path) -> Any:
    """Return how the worker of a model is started."""
    from bitnet_train.serve.api.hand import Start
    from bitnet_train.serve.child import Limits

    settings = config.serve
    argument = {
        "model": {
            "source": source,
            "engine": config.generate.engine,
            "threads": config.generate.threads,
            "most_tokens": settings.most_tokens,
            "cache_dtype": config.generate.cache_dtype,
        },
        "variables": _variables(config, source),
        "limits": {
            "most_texts": settings.most_texts,
            "cache_bytes": int(settings.cache_mb * _MEGABYTE),
            "step_tokens": settings.prefill_tokens,
        },
    }
    memory = None if settings.worker_mb is None else int(settings.worker_mb * _MEGABYTE)
    return Start(argument, Limits(memory_bytes=memory), log)


def _variables(config: Config, source: str) -> dict[str, Any]:
    """Return what the chat template is given: what is asked for, else what the run was trained with."""
    if config.data.chat_template_variables:
        return dict(config.data.chat_template_variables)
    path = Path(source)
    if any((folder / RUN_FILE).is_file() for folder in (path, path.parent)):
        return dict(compose(source).config.data.chat_template_variables)
    return {}


def _tell(config: Config, address: str, names: list[str], has_key: bool) -> None:
    console = open_console(config.quiet)
    header = ' -H "Authorization: Bearer $BITNET_TRAIN_KEY"' if has_key else ""
    body = json.dumps({"model": names[0], "prompt": "def main(", "max_tokens": 32}, ensure_ascii=False)
    lines = (
        f"Serving {', '.join(names)} at {address}/v1. Ctrl-C ends it.",
        f"curl {address}/v1/completions -H 'Content-Type: application/json'{header} -d {shlex.quote(body)}",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
