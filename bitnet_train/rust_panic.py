"""Panics of libraries written in Rust, turned into an ordinary error.

A tokenizer.json can make `tokenizers` index beyond a text. What it then raises is `pyo3_runtime.PanicException`, which
is no `Exception`: it passes every `except Exception` on its way, and ends a command in a traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_RAISED_IN = "pyo3_runtime"


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise a panic of the body as ValueError."""
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != _RAISED_IN:
            raise
        raise ValueError(f"a library gave up: {error}") from error
