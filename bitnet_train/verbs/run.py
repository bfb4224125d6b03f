"""`bitnet-train run`: all stages in a row, in one `Session`, so that what two of them need is loaded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from bitnet_train.config import Config, changed
from bitnet_train.errors import ConfigError
from bitnet_train.model.input_scale import INPUT_SCALE_REFUSAL
from bitnet_train.model.lora_layers import OUTSIDE_MERGE_REFUSAL
from bitnet_train.model.sub_norm import SUB_NORM_REFUSAL
from bitnet_train.progress import open_console
from bitnet_train.run import assembly, summary
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import TrainFacts
from bitnet_train.run.ranks import rank
from bitnet_train.run.result import RunFacts
from bitnet_train.run.session import Session
from bitnet_train.run.side_by_side import continue_both, timed
from bitnet_train.run.tracked import check_trackers, keeping_trackers, tell
from bitnet_train.run.trained_settings import check_resumed
from bitnet_train.verbs.convert import convert
from bitnet_train.verbs.evaluate import evaluate
from bitnet_train.verbs.export import export
from bitnet_train.verbs.merge import merge
from bitnet_train.verbs.train import train
from bitnet_train.verbs.validate import validate

Made = TypeVar("Made")


def run(config: Config) -> RunFacts:
    """Go the whole way: convert, train, merge, export, validate, evaluate, and compare with the original."""
    if config.adapter.kind == "lora_outside":
        raise ConfigError(f"`adapter.kind=lora_outside` cannot go the whole way. {OUTSIDE_MERGE_REFUSAL}")
    for key, refusal in (("input_scale", INPUT_SCALE_REFUSAL), ("sub_norm", SUB_NORM_REFUSAL)):
        if getattr(config.weight, key):
            raise ConfigError(f"`weight.{key}=true` cannot go the whole way. {refusal}")
    assembly.check_machine(config)
    check_trackers(config)
    check_resumed(config)
    config, directory = assembly.open_run(config)
    config = changed(config, {"path": str(directory.root), "export.force": True})
    session = Session(config)
    with keeping_trackers(session):
        return _all_stages(config, directory, session)


def _all_stages(config: Config, directory: RunDirectory, session: Session) -> RunFacts:
    console, seconds = open_console(config.quiet), dict[str, float]()

    def stage(name: str, call: Callable[[], Made]) -> Made:
        console.rule(name)
        made, seconds[name] = timed(call)
        return made

    if rank() > 0:
        train(config, session)
        raise SystemExit(0)
    converted = stage("convert", lambda: convert(config, session, is_compared_later=config.evaluate.against is None))
    trained = stage("train", lambda: train(config, session))
    assert isinstance(trained, TrainFacts), "a whole run is no dry one"
    stage("merge", lambda: merge(config, session))
    exported = stage("export", lambda: export(config, session))
    validated = stage("validate", lambda: validate(config, session))
    evaluated = stage("evaluate", lambda: evaluate(config, session))
    continued, seconds["result"] = timed(lambda: continue_both(config, directory, session, evaluated))
    stages = summary.StagesOfRun(converted, trained, exported, validated, evaluated)
    compared = directory.keep(summary.summarise(config, stages, continued, seconds))
    tell(compared, config, directory, session)
    if not config.quiet:
        console.rule("result")
        console.print(summary.render(compared))
    return compared
