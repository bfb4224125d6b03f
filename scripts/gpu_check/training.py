"""A recipe the whole way on the GPU for the time that is left: the curve of its training, what it keeps, its size.

`smollm2_binary_full` without its blocks, which are many short steps, with rows enough to fill a GPU; in `--small` the
bundled model for two steps. A run that was interrupted goes on from its newest checkpoint, for the minutes it began
with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bitnet_train.config import Config
from bitnet_train.config.compose import compose
from bitnet_train.run.directory import RunDirectory
from bitnet_train.train.trackers.tracking import METRICS_FILE
from bitnet_train.verbs.run import run

TRAINED_SHARE = 0.6  # of the time left: the rest is for the start, the packing, the proof and the evaluation
FEWEST_S = 60.0
POINTS = 200  # of the curve, at most
Facts = dict[str, Any]


def train_for(chosen: argparse.Namespace, seconds_left: float) -> Facts:
    """Return the curve and the result of a run that trains for about so long."""
    directory = RunDirectory(chosen.work / "run")
    facts = run(config_of(chosen, directory, max(FEWEST_S, seconds_left)))
    return {
        "curve": thinned(curve(directory.root / METRICS_FILE)),
        "result": facts.to_dict(),
    }


def config_of(chosen: argparse.Namespace, directory: RunDirectory, seconds: float) -> Config:
    """Return the configuration of the run; one that is there already keeps its own."""
    common = [f"run.dir={directory.root}", "logger=none", "trainer.resume=auto"]
    if chosen.small:
        return compose("quickstart", [*common, "model.source=tiny", "debug=tiny", "trainer.num_threads=1"]).config
    if directory.config.is_file():
        return compose(str(directory.root), ["trainer.resume=auto"]).config
    words = [
        "trainer=gpu_bf16",
        "trainer.checkpointing=false",
        "trainer.max_tokens=null",
        f"trainer.max_minutes={TRAINED_SHARE * seconds / 60:.2f}",
        "trainer.batch_rows=32",
        "trainer.micro_rows=32",
        "blockwise=off",
    ]
    words += [f"model.source={chosen.model}"] if chosen.model else []
    words += ["data=files", f"data.path={chosen.corpus}"] if chosen.corpus else []
    return compose("smollm2_binary_full", [*common, *words]).config


def curve(metrics: Path) -> list[Facts]:
    """Return the figures of every step that a run wrote."""
    return [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]


def thinned(points: list[Facts]) -> list[Facts]:
    """Return at most `POINTS` of them, evenly spread, the first and the last among them."""
    if len(points) <= POINTS:
        return points
    return [points[round(i * (len(points) - 1) / (POINTS - 1))] for i in range(POINTS)]
