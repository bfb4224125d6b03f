"""`bitnet-train playground`: a page to look at models, swap their layers, and see what comes of it.

The rooms that it needs and `serve/` may not import, of recipes, configurations and runs, are handed down from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_train.config import Config
from bitnet_train.config.check import flatten
from bitnet_train.config.compose import compose
from bitnet_train.config.layout import recipes
from bitnet_train.config.paths import path_keys
from bitnet_train.config.target import read_saved, read_yaml
from bitnet_train.disk import check_writable, writing
from bitnet_train.errors import ConfigError
from bitnet_train.run.lock import locked, owner_of
from bitnet_train.train.trackers.redaction import redact
from bitnet_train.verbs import Call
from bitnet_train.verbs.serve import composed, models_named

if TYPE_CHECKING:
    from bitnet_train.serve.playground.house import House


def playground(call: Call) -> dict[str, Any]:
    """Serve the page until Ctrl-C, with the models that are named open."""
    _require_packages()
    from bitnet_train.serve.api.server import open_door, serve
    from bitnet_train.serve.playground.app import application, new_token, rules

    config = composed(call)
    models = _models(config, call.words)
    settings = config.playground
    door = open_door(config.serve)
    address = f"{door.address}/playground/"
    with _alone(Path(settings.dir)), suppress(KeyboardInterrupt):
        app = application(settings, house(Path(config.run.root)), models)
        token, shown = (door.key, "YOUR_KEY") if door.key else [new_token()] * 2
        page = f"{address}?token={shown}"
        serve(app, door, config.serve, lambda: _say(config, page), rules=rules(settings, token))
    return {"address": address}


def _models(config: Config, words: Sequence[str]) -> tuple[str, ...]:
    models = tuple(source for source, _ in models_named(words))
    if len(models) > config.playground.most_models:
        raise ConfigError(
            f"{len(models)} models are named, and `playground.most_models="
            f"{config.playground.most_models}`. Name fewer, or allow more."
        )
    return models


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder of the playground: two servers would remove each other's files."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder)
    owner = owner_of(folder)
    if owner is not None and owner.process.lives:
        raise ConfigError(
            f"`playground.dir={folder}` is in use: a playground, process {owner.process.pid}, since {owner.since}. End "
            "that one, or name another folder."
        )
    with locked(folder, "bitnet-train playground"):
        yield


def house(run_root: Path) -> House:
    """Return what the playground needs of the rooms that it may not import."""
    from bitnet_train.serve.playground.house import House

    return House(
        recipes=lambda: {name: _first_comment(path) for name, path in recipes().items()},
        recipe_content=lambda name: read_yaml(recipes()[name]),
        check=_check,
        path_keys=path_keys,
        saved_config=lambda path: redact(flatten(read_saved(path))),
        is_running=_is_running,
        run_root=run_root,
    )


def _check(recipe: str, words: Sequence[str]) -> Mapping[str, str]:
    return compose(recipe, words).origins


def _is_running(run: Path) -> bool:
    owner = owner_of(run)
    return owner is not None and owner.process.lives


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line[2:].strip() for line in lines if line.startswith("# ") and "@package" not in line), "")


def _require_packages() -> None:
    missing = [name for name in ("starlette", "uvicorn", "pydantic") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"`bitnet-train playground` needs {', '.join(missing)}. Install it: `pip install 'bitnet-train[serve]'`."
        )


def _say(config: Config, page: str) -> None:
    print(page if config.quiet else f"The playground is at\n\n    {page}\n\nCtrl-C ends it.", flush=True)
