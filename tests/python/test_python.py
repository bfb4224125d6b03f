"""The guide's programs and the examples of public docstrings run as they stand."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import pytest

import bitnet_train

GUIDE = Path(__file__).parents[2] / "docs" / "python.md"
MOST_LINES = 15
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def programs() -> dict[str, str]:
    """Return the code blocks of the guide, by the heading above them and their number."""
    found: dict[str, str] = {}
    for section in GUIDE.read_text(encoding="utf-8").split("\n## ")[1:]:
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL)):
            found[f"{section.partition(chr(10))[0]} {number}"] = code
    return found


def examples() -> dict[str, doctest.DocTest]:
    """Return the examples of everything public that has some."""
    finder = doctest.DocTestFinder(recurse=False)
    public = {name: getattr(bitnet_train, name) for name in bitnet_train.__all__ if not name.startswith("__")}
    tests = {name: finder.find(value, name)[0] for name, value in public.items() if inspect.getdoc(value)}
    return {name: test for name, test in tests.items() if test.examples}


@pytest.mark.slow
def test_every_program_of_the_guide_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, code in programs().items():
        exec(compile(code, name, "exec"), {})
    written = {path.name for path in tmp_path.iterdir()}
    assert {"my_run", "my_adapter", "packed", "gguf"} <= written


def test_the_guide_keeps_its_word_on_length() -> None:
    lengths = {name: sum(bool(line.strip()) for line in code.splitlines()) for name, code in programs().items()}
    assert len(lengths) >= 9
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


@pytest.mark.slow
def test_the_examples_of_public_docstrings_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, said = examples(), []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    for test in found.values():
        runner.run(test, out=said.append, clear_globs=True)
    assert "".join(said) == ""
    wanted = {"convert", "plan", "attach", "merge", "fit", "distillation_loss", "export", "load", "BitLightningModule"}
    assert wanted <= found.keys()


def test_everything_public_says_what_it_is() -> None:
    public = {name: getattr(bitnet_train, name) for name in bitnet_train.__all__ if not name.startswith("__")}
    assert [name for name, value in public.items() if not value.__doc__] == []
