from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from bitnet_train.config import Config, changed
from bitnet_train.config.compose import to_yaml
from bitnet_train.importers.load import load_pretrained
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.teacher_products import settle_teacher
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.losses.int8_teacher import FrozenInt8Linear


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path)
    made.create(to_yaml(Config()))
    return made


def taught_in_int8(directory: RunDirectory, **keys: object) -> tuple[bool, str]:
    """Whether the teacher of a new module of the run multiplies in int8, and what was said."""
    student, teacher = load_pretrained("tiny").model, load_pretrained("tiny").model
    module = BitLightningModule(student, teacher, max_steps=1, micro_rows=1)
    words = {"trainer.products": "integer"} | {name.replace("__", "."): value for name, value in keys.items()}
    ids, text = torch.arange(3, 67).reshape(1, 64), io.StringIO()
    settle_teacher(changed(Config(), words), module, {"input_ids": ids, "labels": ids}, directory, Console(file=text))
    assert module.teacher is not None
    return any(isinstance(layer, FrozenInt8Linear) for layer in module.teacher.modules()), text.getvalue()


def test_int8_by_name_is_taken_said_and_kept(directory: RunDirectory) -> None:
    is_int8, said = taught_in_int8(directory, teacher__products="int8")
    facts = directory.facts("teacher")
    assert is_int8
    assert facts is not None
    assert facts["products"] == "int8"
    assert f"{facts['nats']:.4f} nats" in said


@pytest.mark.parametrize(
    "keys",
    [
        {"trainer__products": "float"},
        {"teacher__products": "float"},
        {"teacher__cache": "topk"},
        {"loss__attention": 1.0},
    ],
)
def test_a_teacher_that_may_not_round_stays_in_floats(directory: RunDirectory, keys: dict[str, object]) -> None:
    assert taught_in_int8(directory, **keys) == (False, "")
    assert directory.facts("teacher") is None


@pytest.mark.parametrize("products", ["int8", "float"])
def test_a_continued_run_keeps_what_it_began_with(directory: RunDirectory, products: str) -> None:
    taught_in_int8(directory, teacher__products="int8")
    path = directory.root / "facts" / "teacher.json"
    path.write_text(path.read_text().replace('"int8"', f'"{products}"').replace('"nats": 0.', '"nats": 7.'))
    resumed = {"teacher__products": "auto", "trainer__resume": "auto"}
    assert taught_in_int8(directory, **resumed)[0] == (products == "int8"), "7 nats would be measured as too many"
