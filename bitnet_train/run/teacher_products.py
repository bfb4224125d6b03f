"""How the teacher multiplies, settled once a run: in int8 where that is asked for, or is faster and costs little.

What rounding costs is measured on the first rows of the run. Kept in `facts/teacher.json`, and taken from there when a
run is continued: near the bound another machine could find otherwise, and another teacher would be another run.
"""

from __future__ import annotations

from rich.console import Console
from torch import Tensor, nn

from bitnet_train.config import Config
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import TeacherFacts
from bitnet_train.run.machine import products_of
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.loop.settings import AUTO
from bitnet_train.train.losses.int8_teacher import MOST_LOST, distance, in_int8


def settle_teacher(
    config: Config,
    module: BitLightningModule,
    batch: dict[str, Tensor],
    directory: RunDirectory,
    console: Console,
) -> None:
    """Let the teacher of `module` multiply in int8, or leave it in floats; say what int8 costs on `batch`."""
    if module.teacher is None or not _may_round(config):
        return
    kept = _kept(config, directory)
    if kept is not None and kept.products == "float":
        return
    if kept is not None:
        facts, rounded = kept, in_int8(module.teacher, batch, with_head=kept.with_head)
    else:
        facts, rounded = _rounded(config, module.teacher, batch)
    directory.keep(facts)
    if facts.products == "int8":
        module.teach_with(rounded)
        but = "" if facts.with_head else "but for its head, "
        told = f"The teacher multiplies in int8, {but}{facts.nats:.4f} nats a token from what it says in floats."
        console.print(told, soft_wrap=True)


def _may_round(config: Config) -> bool:
    """Not where the teacher's answers are kept, or its projections listened to."""
    is_free = config.teacher.cache == "none" and config.loss.attention == 0
    asked = config.teacher.products
    return is_free and (asked == "int8" or (asked == AUTO and products_of(config) == "integer"))


def _rounded(config: Config, teacher: nn.Module, batch: dict[str, Tensor]) -> tuple[TeacherFacts, nn.Module]:
    """Round all linears, or all but the head where that alone keeps within `MOST_LOST`, and measure what is lost."""
    for with_head in (True, False):
        rounded = in_int8(teacher, batch, with_head=with_head)
        nats = distance(rounded, teacher, batch)
        if nats <= MOST_LOST:
            return TeacherFacts(products="int8", nats=nats, with_head=with_head), rounded
    is_asked = config.teacher.products == "int8"
    return TeacherFacts(products="int8" if is_asked else "float", nats=nats, with_head=False), rounded


def _kept(config: Config, directory: RunDirectory) -> TeacherFacts | None:
    if config.trainer.resume == "never" or config.teacher.products != AUTO:
        return None
    return directory.kept(TeacherFacts)
