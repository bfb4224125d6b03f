"""The results of recipes load, whatever version wrote them, and say again what they said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.config.layout import house
from bitnet_train.run.result import RunFacts, Spent

RESULTS = [
    path
    for path in sorted((house() / "recipes" / "results").glob("*.json"))
    if json.loads(path.read_text(encoding="utf-8")).get("stage") == "run"
]


def test_there_are_results_of_recipes() -> None:
    assert {"quickstart", "smollm2_binary_full"} <= {path.stem for path in RESULTS}


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_loads_and_what_it_holds_is_written_again(path: Path) -> None:
    held = json.loads(path.read_text(encoding="utf-8"))
    written = json.loads(json.dumps(RunFacts.from_dict(held, path.name).to_dict()))
    assert {name: written[name] for name in held if name not in ("train", "decode")} == {
        name: value for name, value in held.items() if name not in ("train", "decode")
    }
    for section in ("train", "decode"):
        assert _within(held[section], written[section])


def _within(held: object, written: object) -> bool:
    """Whether all that is held is written: what older versions did not know may be added."""
    if isinstance(held, dict) and isinstance(written, dict):
        return all(name in written and _within(value, written[name]) for name, value in held.items())
    return held == written


def test_what_older_results_lack_is_as_readers_take_it() -> None:
    path = next(path for path in RESULTS if path.stem == "quickstart")
    values = json.loads(path.read_text(encoding="utf-8"))
    values["train"].pop("before", None)
    for speed in values["decode"].values():
        speed.pop("engine", None)
    values["size"] = {key: values["size"][key] for key in ("packed_bytes", "scale_bytes", "fp16_bytes", "total_bytes")}
    result = RunFacts.from_dict({key: value for key, value in values.items() if key not in ("texts", "stage_seconds")})
    assert result.train.before == Spent()
    assert result.texts == ()
    assert result.continued.decode.packed.computed_by == "torch"
    assert result.continued.decode.packed.engine is None, "which a table does not name"
    assert (result.size.folder_bytes, result.size.original_bytes) == (values["size"]["total_bytes"], None)
