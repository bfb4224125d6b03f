"""The one door from a run to its trackers: training opens it, and the verbs after training find the same run behind it.

    with tracked(config, directory, session) as trackers: ...     figures of every step, samples
    tell(facts, config, directory, session)                       what a stage came to, and what it wrote

A verb alone opens the trackers of the run directory and closes them; `bitnet-train run` opens them once, in its
`Session`, and keeps them until its last stage (`keeping_trackers`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from bitnet_train.config import Config, build_object
from bitnet_train.config.compose import to_dict
from bitnet_train.facts import Facts
from bitnet_train.importers.source import public_name
from bitnet_train.progress import open_console
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import TrainFacts
from bitnet_train.run.session import Session
from bitnet_train.run.tracked_figures import artefacts_of, figures_of
from bitnet_train.run.trained_settings import step_reached
from bitnet_train.train.trackers.run_trackers import RunTrackers
from bitnet_train.train.trackers.tracker import Status, TrackedRun
from bitnet_train.train.trackers.tracking import build_loggers, check_tracker, guarded
from bitnet_train.train.trackers.wandb_tracker import WANDB_MODES


def check_trackers(config: Config) -> None:
    """Raise ConfigError, with the command that installs it, where the package of the chosen tracker is missing."""
    check_tracker(config.logger.kind)


@contextmanager
def tracked(config: Config, directory: RunDirectory, session: Session | None = None) -> Iterator[RunTrackers]:
    """Yield the trackers of a run that trains; they are closed after the block unless the session keeps them."""
    with _opened(config, directory, session, is_over=False) as trackers:
        yield trackers


@contextmanager
def keeping_trackers(session: Session) -> Iterator[None]:
    """Have the first stage that opens the trackers leave them open for the next ones, to the end of the block."""
    session.keeps_trackers = True
    try:
        yield
    except BaseException as error:
        _close(session.trackers, error)
        raise
    finally:
        session.keeps_trackers, trackers, session.trackers = False, session.trackers, None
    _close(trackers, None)


def tell(facts: Facts, config: Config, directory: RunDirectory | None, session: Session | None = None) -> None:
    """Tell the trackers of a run what a stage of it came to; nothing where there is no run."""
    if directory is None:
        return
    with _opened(config, directory, session, is_over=True) as trackers:
        show(trackers, facts, config)


def show(trackers: RunTrackers, facts: Facts, config: Config) -> None:
    """Show open trackers what a stage came to, and what it read and wrote."""
    trackers.summarise(figures_of(facts))
    for artefact in artefacts_of(facts, config):
        trackers.keep(artefact)


@contextmanager
def _opened(
    config: Config, directory: RunDirectory, session: Session | None, *, is_over: bool
) -> Iterator[RunTrackers]:
    if session is not None and session.trackers is not None:
        yield session.trackers
        return
    trackers = _open(config, directory, is_over=is_over)
    if session is not None and session.keeps_trackers:
        session.trackers = trackers
        yield trackers
        return
    try:
        yield trackers
    except BaseException as error:
        _close(trackers, error)
        raise
    _close(trackers, None)


def _close(trackers: RunTrackers | None, error: BaseException | None) -> None:
    status: Status = "success"
    if error is not None:
        status = "failed" if isinstance(error, Exception) else "interrupted"
    if trackers is not None:
        trackers.close(status)


def _open(config: Config, directory: RunDirectory, *, is_over: bool) -> RunTrackers:
    """Start the chosen tracker, which is shown the redacted configuration; it can neither end nor delay the run."""
    choice, console = config.logger, open_console(config.quiet, stderr=True)

    def say(text: str) -> None:
        console.print(f"note: {text}", markup=False, soft_wrap=True)

    if choice.kind == "custom":
        make = partial(build_object, choice.custom, "logger.custom")
        return RunTrackers([] if is_over else [guarded("custom", make, to_dict(config), say)])
    reached = _steps_made(directory) if is_over else step_reached(config)
    is_rewound = not is_over and (reached == 0 or config.trainer.resume not in ("auto", "never"))
    run = _described(config, directory, rewound_to=reached if is_rewound else None)
    return RunTrackers(build_loggers(choice.kind, run, to_dict(config), reached=reached, is_over=is_over, say=say))


def _steps_made(directory: RunDirectory) -> int:
    trained = directory.kept(TrainFacts)
    return trained.result.steps if trained is not None else 0


def _described(config: Config, directory: RunDirectory, rewound_to: int | None) -> TrackedRun:
    """Return what a tracker is told of a run: its name is the recipe and that of the folder, its tags what it is."""
    choice, model = config.logger, public_name(config.model.source)
    recipe = config.recipe if config.recipe != "none" else model
    tags = (recipe, model, config.weight.scheme.title, config.activation.name, config.adapter.kind, *choice.tags)
    return TrackedRun(
        run_dir=directory.root,
        name=choice.name or f"{recipe} {directory.root.absolute().name}",
        project=choice.project,
        group=choice.group or recipe,
        tags=tuple(dict.fromkeys(tags)),
        offline=WANDB_MODES[choice.mode],
        uri=choice.uri,
        upload=choice.upload,
        rewound_to=rewound_to,
    )
