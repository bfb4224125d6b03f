"""What every verb passes through: the run directory it writes in is found or made, locked, and cleared of leftovers.

    with holding(config, "merge") as config:    the run is this process's alone
        ...

A new run gets a folder of its own: its name is the time, and where that is taken, by one that began in the same second
or before the clock was set back, the time with a number. One that was refused before it wrote anything leaves no
folder behind. What a configuration with a secret comes to is for its owner alone (`private`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import chain, count
from pathlib import Path

from bitnet_train.config.compose import to_dict
from bitnet_train.config.schema import Config, changed, named_run
from bitnet_train.disk import check_writable, writing
from bitnet_train.importers.found import RUN_FILE
from bitnet_train.run.lock import locked
from bitnet_train.run.private import private_where_secret
from bitnet_train.run.ranks import can_connect, follow, rank, stop_leading
from bitnet_train.run.report import refresh
from bitnet_train.whole import clear_left

_IN_EVERY_PROCESS = ("train", "run")  # what the processes of a launcher do together; all else the first does alone
_DEALT_OUT = ("evaluate",)  # of which they read parts, where they can reach each other
_WRITTEN, _WRITTEN_IN_TRAINING = ("facts",), ("checkpoints", "cache", "metrics.jsonl")


@contextmanager
def holding(config: Config, verb: str, *, is_new: bool = False, writes: bool = True) -> Iterator[Config]:
    """Yield the configuration with its run directory, which is this process's alone in the block.

    is_new: the verb makes a run where none is named. writes: False for a verb that only reads. A process that is not
    the first of its run ends with the block.

    Raises RunInUseError where another process writes there, DiskError where this one may not.
    """
    with private_where_secret(to_dict(config)), _entered(config, verb, is_new=is_new, writes=writes) as held:
        yield held


def _entered(config: Config, verb: str, *, is_new: bool, writes: bool) -> AbstractContextManager[Config]:
    if rank() > 0:
        return _following(config, verb)
    if config.dry_run or not writes or not (is_new or config.run.dir):
        return nullcontext(config)
    return _held(config, verb)


def placed(config: Config) -> tuple[Config, list[Path]]:
    """Return the configuration with its `run.dir`, which is there then, and the folders that were made for it.

    Where the name of the run is the time, the folder is new.
    """
    named = named_run(config)
    is_given = config.run.dir is not None or config.run.name is not None
    root = Path(str(named.run.dir))
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    places = chain([root], (root.with_name(f"{root.name}-{number}") for number in count(2)))
    place = next(place for place in places if _makes(place, exist_ok=is_given))
    return changed(named, {"run.dir": str(place)}), missing if place == root else [place]


def _makes(place: Path, *, exist_ok: bool) -> bool:
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.mkdir(exist_ok=exist_ok)
        except FileExistsError:
            if exist_ok:  # a file
                raise
            return False
    return True


@contextmanager
def _held(config: Config, verb: str) -> Iterator[Config]:
    if config.run.dir is not None:
        _check_writable(Path(config.run.dir), verb)
    config, made = placed(config)
    root = Path(str(config.run.dir))
    is_ours = False
    try:
        with locked(root, f"bitnet-train {verb}"):
            is_ours = True
            clear_left(root, is_ours=True)
            yield config
    except BaseException:
        if is_ours and verb in _IN_EVERY_PROCESS and (root / RUN_FILE).is_file():
            refresh(root)  # which says where training stands now
        raise
    finally:
        stop_leading()
        with suppress(OSError):  # something was written
            for folder in made:
                folder.rmdir()


def _check_writable(root: Path, verb: str) -> None:
    for name in ("", *_WRITTEN, *(_WRITTEN_IN_TRAINING if verb in _IN_EVERY_PROCESS else ())):
        check_writable(root / name)


@contextmanager
def _following(config: Config, verb: str) -> Iterator[Config]:
    """Do what the first process of the run does beside it, where they do it together, and end."""
    if verb in _DEALT_OUT and can_connect() and not config.dry_run:
        yield changed(config, {"quiet": True})
    if config.dry_run or verb not in _IN_EVERY_PROCESS:
        raise SystemExit(0)
    try:
        yield follow(config)
    except SystemExit as stop:
        if getattr(stop, "checkpoint", None) is None:  # else all have stopped together, which is for the first to tell
            raise
    raise SystemExit(0)
