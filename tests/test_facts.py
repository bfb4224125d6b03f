"""Facts keep their shape on disk, say which field is wrong, and take what older and newer files lack or add."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from bitnet_train.errors import FormatError
from bitnet_train.facts import BESIDE, LEFT_OUT, Facts, Frame, plain


@dataclass(frozen=True)
class Size:
    num_bytes: int
    share: float | None = None


@dataclass(frozen=True)
class Cooked(Facts):
    stage: ClassVar[str] = "cook"
    name: str
    size: Size = field(metadata=BESIDE)
    folder: Path
    rest: tuple[Size, ...] = ()
    pair: tuple[int, float] | None = field(default=None, metadata=LEFT_OUT)
    level: Literal["low", "high"] = "low"
    ended: bool | float = False
    seconds: dict[str, float] = field(default_factory=dict)
    more: Size | None = field(default=None, metadata=LEFT_OUT)
    names: dict[str, int] | tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared(Facts):
    stage: ClassVar[str] = "compare"
    text: str
    size: Size | None = field(default=None, metadata=BESIDE)


FRAME = Frame("cook", "2026-11-29T00:00:00+0000", {"torch": "2.13.0", "machine": "x86_64", "cores": 2})
FULL = Cooked(
    "soup",
    Size(7, 0.5),
    Path("a/b"),
    rest=(Size(1), Size(2, 1.0)),
    pair=(3, 0.25),
    level="high",
    ended=0.5,
    seconds={"first": 1.5},
    more=Size(9),
    frame=FRAME,
)
LEAST: dict[str, Any] = {"name": "soup", "num_bytes": 7, "folder": "a/b"}


def test_what_is_written_is_read_again_and_the_frame_stands_around_it() -> None:
    written = FULL.to_dict()
    assert list(written) == [
        *("stage", "finished", "name", "num_bytes", "share", "folder", "rest", "pair", "level", "ended", "seconds"),
        *("more", "names", "made_by"),
    ]
    assert Cooked.from_dict(json.loads(json.dumps(written))) == FULL
    assert FRAME.machine == "2 cores, x86_64"


def test_what_is_left_out_has_no_key_and_what_is_none_has_one() -> None:
    written = Cooked("soup", Size(7), Path("a")).to_dict()
    assert written["share"] is None
    assert {"pair", "more", "stage", "made_by"} & written.keys() == set()


def test_an_older_file_takes_defaults_and_keys_of_a_newer_one_are_passed_over() -> None:
    found = Cooked.from_dict({**LEAST, "of_tomorrow": [1]})
    assert found == Cooked("soup", Size(7), Path("a/b"))
    assert Compared.from_dict({"text": "t"}).size is None
    assert Compared.from_dict({"text": "t", "num_bytes": 3}).size == Size(3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": 3}, "`name` must be a string, not 3"),
        ({"num_bytes": True}, "`num_bytes` must be an integer, not True"),
        ({"num_bytes": 2.5}, "`num_bytes` must be an integer, not 2.5"),
        ({"share": "much"}, "`share` must be a number, not 'much'"),
        ({"rest": [{"num_bytes": 1}, {"num_bytes": "x"}]}, r"`rest\.1\.num_bytes` must be an integer"),
        ({"rest": 1}, "`rest` must be a list"),
        ({"pair": [1]}, "`pair` must be a list of 2"),
        ({"level": "middle"}, "`level` must be one of 'low', 'high'"),
        ({"seconds": {"first": None}}, r"`seconds\.first` must be a number, not None"),
        ({"more": {}}, r"cook\.json has no field `more\.num_bytes`"),
        ({"more": 4}, "`more` must be an object, not 4"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_field(change: dict[str, Any], told: str) -> None:
    with pytest.raises(FormatError, match=rf"cook\.json.*{told}|{told}"):
        Cooked.from_dict({**LEAST, **change}, "facts/cook.json")


def test_a_field_that_every_file_has_and_this_one_lacks_is_named() -> None:
    with pytest.raises(FormatError, match=r"cook\.json has no field `name`"):
        Cooked.from_dict({"num_bytes": 1, "folder": "a"}, "facts/cook.json")


@pytest.mark.parametrize(("held", "found"), [({"a": 1}, {"a": 1}), (["a", "b"], ("a", "b"))])
def test_what_was_a_list_before_is_read_beside_what_is_an_object_now(held: object, found: object) -> None:
    assert Cooked.from_dict({**LEAST, "names": held}).names == found


def test_a_whole_number_stands_for_a_float_and_stays_as_it_was_written() -> None:
    found = Cooked.from_dict({**LEAST, "share": 1})
    assert found.size.share == 1
    assert json.dumps(found.to_dict()["share"]) == "1"


def test_plain_values_pass_as_they_are() -> None:
    assert plain({"passed": True, "rows": (1, Path("x"))}) == {"passed": True, "rows": [1, "x"]}
