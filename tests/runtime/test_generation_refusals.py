"""What both engines are asked for is checked by name before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.runtime.generation import GenerationOptions, Sampling
from bitnet_train.runtime.native.context import Context

NAN, HUGE = float("nan"), 10**400
WRONG: list[tuple[str, Any]] = [
    *(("max_new_tokens", value) for value in (-1, 1.5, "3", b"3", None, True, 1 << 31, HUGE, [3])),
    *(("top_k", value) for value in (-1, 1.5, "3", None, True, 1 << 31, HUGE)),
    *(("temperature", value) for value in (-0.1, NAN, float("inf"), "hot", b"1", None, True, [1.0], 1j)),
    *(("top_p", value) for value in (0, 1.1, NAN, "1", None)),
    *(("min_p", value) for value in (-0.1, 1, NAN, "0", None)),
    *(("typical_p", value) for value in (0, 1.1, NAN, "1", None)),
    *(("repetition_penalty", value) for value in (0, -1.0, 101, NAN, "1", None)),
    *((f"{kind}_penalty", value) for kind in ("frequency", "presence") for value in (-2.1, 2.1, NAN, "0", None)),
    *(("logit_bias", value) for value in (None, [1], {"1": 2.0}, {-1: 2.0}, {1: 101}, {1: NAN}, {1: "2"}, {1.5: 1})),
    *(("seed", value) for value in (1.5, "3", None, 1 << 64, HUGE, NAN)),
]
WRONG_OPTIONS: list[tuple[str, Any]] = [
    *(("chat", value) for value in ("yes", 1, None)),
    *(("chat_template_variables", value) for value in ("a=1", [1], {1: 2})),
    *(("stop", value) for value in ("END", b"END", [b"END"], [""], [1], None, 3)),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: repr(value)[:12])
def test_a_setting_of_another_kind_or_size_is_refused_by_name(name: str, value: Any) -> None:
    for kind in (Sampling, GenerationOptions):
        with pytest.raises(ConfigError, match=f"`{name}=") as caught:
            kind(**{name: value})
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("name", "value"), WRONG_OPTIONS, ids=lambda value: repr(value)[:12])
def test_an_option_of_another_kind_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"`{name}="):
        GenerationOptions(**{name: value})


def test_numbers_of_numpy_and_whole_temperatures_are_taken() -> None:
    GenerationOptions(np.int64(3), np.float32(0.5), np.int32(2), 1, 0, -1, True, {"a": 1}, ["END"])


@pytest.mark.parametrize(
    "given",
    ["abc", b"abc", 3, None, [1.5], ["1"], [None], [True], [[1]], {1: 2}, [NAN], object()],
    ids=lambda given: repr(given)[:12],
)
def test_what_is_no_list_of_token_ids_is_refused(given: Any) -> None:
    with pytest.raises(DataError, match="Token ids are a list of whole numbers"):
        Context(9, 9, 9).check(given)


def test_ids_of_numpy_are_taken_and_huge_ones_are_unknown() -> None:
    assert Context(9, 9, 9).check(np.array([1, 2])) == [1, 2]
    for huge in (HUGE, -HUGE, 9):
        with pytest.raises(DataError, match="is not one of this model"):
            Context(9, 9, 9).check([huge])
