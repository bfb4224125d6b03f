"""What each tracker holds of a run, read back with its own reader: figures, configuration, samples, summary, resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bitnet_train.train.trackers.panels import panel
from bitnet_train.train.trackers.told import Told
from bitnet_train.train.trackers.tracking import TRACKERS
from tests.fixtures.tracked_run import PASSWORD, SAMPLES, SECRET, STEPS, SUMMARY, figures_of, whole_life
from tests.fixtures.wandb_file import records

Series = dict[str, list[tuple[int, float]]]


@dataclass
class Held:
    """What a tracker holds: scalars in the order they are held, closing figures, nested keys, texts, runs."""

    scalars: Series
    summary: dict[str, Any]
    config: dict[str, Any]
    samples: set[tuple[int, str]]
    runs: list[str]
    identity: dict[str, Any] = field(default_factory=dict)


def _from_tensorboard(run_dir: Path) -> Held:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    scalars = {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    texts = {
        tag: [(each.step, each.tensor_proto.string_val[0].decode()) for each in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    told = HParamsPluginData()
    told.ParseFromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    start = told.session_start_info.hparams
    config = {name: start[name].number_value or start[name].string_value for name in start}
    told.ParseFromString(events.SummaryMetadata("_hparams_/experiment").plugin_data.content)
    columns = [info.name.tag for info in told.experiment.metric_infos]
    summary = {tag.split("/", 1)[1]: held[-1][1] for tag, held in scalars.items() if tag.startswith("summary/")}
    summary |= {tag.split("/")[1]: held[-1][1] for tag, held in texts.items() if tag.startswith("summary/")}
    samples = {pair for tag, held in texts.items() if tag.startswith("samples/") for pair in held}
    return Held(scalars, summary, config, samples, ["one"], {"columns": columns})


def _from_wandb(run_dir: Path) -> Held:
    scalars: Series = {}
    summary: dict[str, Any] = {}
    config: dict[str, Any] = {}
    runs: list[str] = []
    samples: set[tuple[int, str]] = set()
    artifacts: dict[str, Any] = {}
    run: dict[str, Any] = {}
    for path in sorted((run_dir / "wandb").glob("offline-run-*/*.wandb")):
        for kind, record in records(path):
            if kind == "run":
                run = record
                runs.append(run["run_id"])
            elif kind == "config":
                config |= record["update"]
            elif kind == "summary":
                summary |= record["update"]
            elif kind == "artifact":
                artifacts[record["name"]] = record
            elif kind == "history":
                row = record["item"]
                if "samples.path" in row:
                    stored = json.loads((path.parent / "files" / row["samples.path"]).read_text())
                    samples |= {(at, prompt + text) for at, prompt, text in stored["data"]}
                for name, value in row.items():
                    if "/" in name and name != "trainer/global_step":
                        scalars.setdefault(name, []).append((row["_step"], value))
    return Held(scalars, summary, config, samples, runs, {"run": run, "artifacts": artifacts})


def _from_mlflow(run_dir: Path) -> Held:
    from mlflow.tracking import MlflowClient

    from bitnet_train.train.trackers.mlflow_tracker import store_of

    client = MlflowClient(store_of(run_dir))
    experiment = client.get_experiment_by_name("planted")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    run = runs[0]
    names = run.data.metrics
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in names}
    scalars = {name: [(each.step, each.value) for each in held] for name, held in histories.items()}
    summary = {name.split("/", 1)[1]: value for name, value in names.items() if name.startswith("summary/")}
    tags = run.data.tags
    table = json.loads((run_dir / "mlflow/artefacts" / run.info.run_id / "artifacts/samples.json").read_text())
    samples = {(at, prompt + text) for at, prompt, text in table["data"]}
    ids = [each.info.run_id for each in runs]
    return Held(scalars, {**summary, **tags}, dict(run.data.params), samples, ids, {"run": run})


def _from_trackio(run_dir: Path) -> Held:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    from bitnet_train.train.trackers.trackio_tracker import _point_at

    _point_at(run_dir / "trackio")
    runs = list(trackio.Api().runs("planted"))
    scalars: Series = {}
    summary: dict[str, Any] = {}
    samples: set[tuple[int, str]] = set()
    for row in SQLiteStorage.get_logs("planted", runs[0].name, run_id=runs[0].id):
        step = row.pop("step")
        for name, value in row.items():
            if isinstance(value, dict):
                shown = value["_value"][0]
                if name == "samples":
                    samples.add((shown["step"], shown["prompt"] + shown["text"]))
                elif name == "summary/words":
                    summary |= shown
            elif name.startswith("summary/"):
                summary[name.removeprefix("summary/")] = value
            elif "/" in name:
                scalars.setdefault(name, []).append((step, value))
    return Held(scalars, summary, dict(runs[0].config), samples, [each.id for each in runs], {"name": runs[0].name})


READERS: Mapping[str, Callable[[Path], Held]] = {
    "tensorboard": _from_tensorboard,
    "wandb": _from_wandb,
    "mlflow": _from_mlflow,
    "trackio": _from_trackio,
}


INSTALLED = [kind for kind in READERS if find_spec(kind) is not None]


@dataclass
class Life:
    kind: str
    run_dir: Path
    notes: list[str]
    held: Held


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return a run that was killed, resumed and measured, with all trackers, and the notes that were said."""
    run_dir = tmp_path_factory.mktemp("tracked") / "run"
    return run_dir, whole_life(INSTALLED, run_dir)


@pytest.fixture(scope="module", params=READERS)
def life(request: pytest.FixtureRequest, lived: tuple[Path, list[str]]) -> Life:
    """Return the run, and what one of its trackers holds of it."""
    kind = request.param
    if kind not in INSTALLED:
        pytest.skip(f"{kind} is not installed")
    run_dir, notes = lived
    return Life(kind, run_dir, notes, READERS[kind](run_dir))


pytestmark = pytest.mark.slow


def test_every_figure_of_the_run_is_there_once_a_step_over_the_resume(life: Life) -> None:
    own = figures_of(life.run_dir)
    assert life.notes == []
    assert sorted(own["loss"]) == list(range(1, STEPS + 1))
    for name, steps in own.items():
        held = life.held.scalars[panel(name)]
        assert [step for step, _ in held] == sorted(steps), name
        told = [math.isclose(value, steps[step], rel_tol=1e-6) for step, value in held]
        assert all(told), (name, held, steps)


def test_every_tracker_that_knows_runs_again_is_read_back() -> None:
    assert set(READERS) == {name for name, kind in TRACKERS.items() if kind is not None and kind.knows_runs}


def test_figures_stand_in_sections(life: Life) -> None:
    names = set(life.held.scalars)
    assert {"train/loss", "train/kl", "val/ce", "val/perplexity", "optim/lr", "quant/hardness"} <= names
    assert all("/" in name for name in names)


def test_a_resumed_run_is_one_run_whose_id_is_in_its_directory(life: Life) -> None:
    assert len(set(life.held.runs)) == 1
    told = Told(life.run_dir, life.kind)
    assert not told.is_new
    assert life.kind == "tensorboard" or set(life.held.runs) == {told.id}
    assert told.last_step == STEPS


def test_the_configuration_is_there_without_its_secrets(life: Life) -> None:
    config = life.held.config
    lr = config["optimizer"]["lr"] if "optimizer" in config else config["optimizer.lr"]
    assert float(lr) == 0.125
    assert config["hf_token"] == "[redacted]"
    written = b"".join(
        path.read_bytes() for path in life.run_dir.rglob("*") if path.is_file() and "checkpoints" not in path.parts
    )
    assert b"[redacted]" in written
    assert SECRET.encode() not in written
    assert PASSWORD.encode() not in written


def test_what_the_run_came_to_is_there(life: Life) -> None:
    summary = life.held.summary
    assert float(summary["perplexity_ratio"]) == SUMMARY["perplexity_ratio"]
    assert float(summary["size_bytes"]) == SUMMARY["size_bytes"]
    assert float(summary["steps"]) == STEPS
    assert summary["verdict"] == "passed"


def test_samples_of_every_step_are_there_once(life: Life) -> None:
    texts = {(step, f"{prompt}{text}".replace(f"token={SECRET}", "[redacted]")) for step, prompt, text in SAMPLES}
    held = {(step, text.replace("\n    ", "\n").removeprefix("    ")) for step, text in life.held.samples}
    assert held == texts


def _only(life: Life, kind: str) -> dict[str, Any]:
    if life.kind != kind:
        pytest.skip(f"of {kind} alone")
    return life.held.identity


def test_tensorboard_has_a_table_of_hyperparameters_with_the_final_figures(life: Life) -> None:
    columns = _only(life, "tensorboard")["columns"]
    assert {"summary/perplexity_ratio", "summary/size_bytes", "val/perplexity"} <= set(columns)


def test_wandb_knows_name_group_job_type_tags_and_where_things_come_from(life: Life) -> None:
    known = _only(life, "wandb")
    run, artifacts = known["run"], known["artifacts"]
    assert (run["display_name"], run["project"], run["job_type"]) == ("quickstart one", "planted", "train")
    assert (run["run_group"], run["tags"]) == ("quickstart", ["binary", "int8"])
    original, packed = artifacts["original-tiny"], artifacts["quickstart-packed"]
    assert original["use_after_commit"]
    assert "use_after_commit" not in packed
    assert json.loads(packed["metadata"])["made_from"] == "tiny"
    (entry,) = packed["manifest"]["contents"]
    assert entry["ref"].endswith("/artefact/weights.bin")
    assert int(entry["size"]) == 100
    (sent,) = artifacts["quickstart-sent"]["manifest"]["contents"]
    assert "ref" not in sent
    assert sent["local_path"].endswith("/artefact/weights.bin")


def test_mlflow_knows_name_group_and_artefacts(life: Life) -> None:
    run = _only(life, "mlflow")["run"]
    assert run.info.run_name == "quickstart one"
    assert run.info.status == "FINISHED"
    tags = run.data.tags
    assert (tags["group"], tags["tag.binary"]) == ("quickstart", "true")
    assert tags["artefact.packed"] == str(life.run_dir / "artefact")
    kept = life.run_dir / "mlflow/artefacts" / run.info.run_id / "artifacts"
    assert (kept / "sent/weights.bin").stat().st_size == 100
    assert not (kept / "packed").exists()


def test_trackio_knows_name_and_group(life: Life) -> None:
    assert _only(life, "trackio")["name"] == "quickstart one"
    assert life.held.config["_Group"] == "quickstart"
    assert list((life.run_dir / "trackio").glob("*.db"))
