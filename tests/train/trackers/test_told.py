from __future__ import annotations

import json
import math
from pathlib import Path

from bitnet_train.train.trackers.told import Told, earlier_lines, earlier_samples


def test_a_run_keeps_its_id_and_what_it_was_told(tmp_path: Path) -> None:
    told = Told(tmp_path, "wandb")
    told.keep()
    told.note({"loss": 1.0}, 3)
    told.note({"val_ce": 1.0}, 2)
    again = Told(tmp_path, "wandb")
    assert (again.id, again.is_new, again.last_step) == (told.id, False, 3)
    assert again.has({"loss": 2.0}, 3)
    assert not again.has({"loss": 2.0}, 4)
    assert not again.has({"val_ce": 2.0}, 3)
    assert not again.has({"flips": 0.1}, 1)


def test_another_store_is_another_run(tmp_path: Path) -> None:
    told = Told(tmp_path, "mlflow")
    told.keep()
    told.note({"loss": 1.0}, 3)
    elsewhere = Told(tmp_path, "mlflow", "http://host:5000")
    assert elsewhere.is_new
    assert elsewhere.id != told.id
    assert elsewhere.last_step == 0


def test_damaged_files_make_a_new_run(tmp_path: Path) -> None:
    (tmp_path / "trackers").mkdir()
    for name in ("wandb.json", "wandb.steps"):
        (tmp_path / "trackers" / name).write_text('{"id": ')
    assert Told(tmp_path, "wandb").is_new


def test_what_is_written_in_place_is_one_object_however_often(tmp_path: Path) -> None:
    told = Told(tmp_path, "csv")
    told.keep()
    for step in range(100):
        told.note({"loss": 1.0}, step)
    told.go_back_to(7)
    told.note({"val_ce": 1.0}, 7)
    assert json.loads((tmp_path / "trackers/csv.steps").read_text()) == {"loss": 7, "val_ce": 7}


def test_a_file_of_last_steps_that_was_longer_is_one_object_too(tmp_path: Path) -> None:
    told = Told(tmp_path, "wandb")
    told.keep()
    for number in range(60):
        told.note({f"a figure of a long name {number}": 1.0}, number)
    told.close()
    told = Told(tmp_path, "wandb")
    assert len(told.steps) == 60
    told.start_anew()
    told.keep()
    told.note({"loss": 1.0}, 1)
    assert json.loads((tmp_path / "trackers/wandb.steps").read_text()) == {"loss": 1}


def test_lines_are_taken_once_a_step_in_order_and_the_later_of_two(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 2, "val_ce": None}, {"step": 3, "loss": 9.0}]
    again = [{"step": 2, "loss": 2.5}, {"step": 3, "loss": 3.0}]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *again]) + '{"step": 4, "lo')
    lines = earlier_lines(path, None)
    assert [(step, next(iter(row))) for step, row in lines] == [(1, "loss"), (2, "loss"), (2, "val_ce"), (3, "loss")]
    assert lines[1][1] == {"loss": 2.5}
    assert math.isnan(lines[2][1]["val_ce"])
    assert [step for step, _ in earlier_lines(path, 2)] == [1, 2, 2]
    assert earlier_lines(tmp_path / "none.jsonl", None) == []


def test_samples_of_before_are_read_and_what_is_none_is_left_out(tmp_path: Path) -> None:
    assert earlier_samples(tmp_path) == {}
    rows = [{"step": 1, "prompt": "a", "text": "b"}, {"step": 1, "prompt": "a", "text": "c"}, {"step": 2}]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert earlier_samples(tmp_path) == {(1, "a"): "c"}
