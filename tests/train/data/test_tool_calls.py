from __future__ import annotations

import json

import pytest

from bitnet_train.errors import DataError
from bitnet_train.train.data.tool_calls import call_names, read_calls, read_tools, with_text_arguments

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": [1, None], "ü": "ß"}}}


@pytest.mark.parametrize("tools", [[TOOL], [FUNCTION], json.dumps([TOOL]), json.dumps(FUNCTION)])
def test_tools_come_in_one_form_whatever_they_were_written_as(tools: object) -> None:
    assert read_tools("row", tools) == (TOOL,)


@pytest.mark.parametrize("nothing", [None, "", " ", [], "[]"])
def test_no_tools_are_no_tools(nothing: object) -> None:
    assert read_tools("row", nothing) == ()


def test_calls_come_in_one_form_with_their_arguments_as_objects() -> None:
    bare = {"name": "f", "arguments": json.dumps(CALL["function"]["arguments"])}  # type: ignore[index]
    for calls in ([CALL], [bare], json.dumps([bare]), [{"type": "function", "function": bare}]):
        assert read_calls("row", calls) == [CALL]


def test_arguments_that_are_no_object_stay_as_they_are() -> None:
    for arguments in ("Paris", "[1]", "{"):
        (call,) = read_calls("row", [{"name": "f", "arguments": arguments}])
        assert call["function"]["arguments"] == arguments


def test_arguments_become_text_and_come_back() -> None:
    assert read_calls("row", with_text_arguments([CALL])) == [CALL]
    assert with_text_arguments([CALL])[0]["function"]["arguments"] == '{"x": [1, null], "ü": "ß"}'


def test_the_names_of_calls() -> None:
    assert call_names([CALL, {"type": "other"}]) == ["f"]
    assert call_names(None) == []


@pytest.mark.parametrize("wrong", ["f(x)", 3, [3]])
def test_what_is_no_list_of_objects_is_refused(wrong: object) -> None:
    with pytest.raises(DataError, match=r"row: field `tools` (is text, but not JSON|must be a list of objects)"):
        read_tools("row: field `tools`", wrong)
