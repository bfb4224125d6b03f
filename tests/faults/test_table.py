"""The table names every fault once, and tests that are there; its page is what it and the last campaign say."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from scripts.tables import faults as page
from tests.faults.table import FAULTS, Row

ROOT = Path(__file__).parents[2]
LAST = 42


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_fault_stands_in_one_row() -> None:
    assert [number for row in FAULTS for number in range(row.first, row.last + 1)] == list(range(1, LAST + 1))


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row.numbers)
def test_a_row_has_tests_that_are_there(row: Row) -> None:
    assert row.times > 0
    assert row.tests
    for test in row.tests:
        file, _, name = test.partition("::")
        assert name in functions_of(file), test


def test_every_test_of_the_campaign_stands_in_the_table() -> None:
    named = {test for row in FAULTS for test in row.tests}
    files = [path.name for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]
    there = {f"tests/faults/{file}::{name}" for file in files for name in functions_of(f"tests/faults/{file}")}
    assert {name for name in there if "::test_" in name} - named == set()


def test_the_page_is_what_the_last_campaign_says() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.document(page.read_result())
