"""Errors of a workbench in words."""

from __future__ import annotations

import pytest

from bitnet_train.errors import FormatError
from bitnet_train.serve.playground.workbench.told import told


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FormatError("`x` is cut"), "`x` is cut"),
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "There is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "There is not enough memory"),
        (ValueError("x" * 9999), "ValueError: xxx"),
    ],
)
def test_an_error_is_said_in_words(error: BaseException, said: str) -> None:
    assert told(error).startswith(said)
    assert len(told(error)) < 2100
