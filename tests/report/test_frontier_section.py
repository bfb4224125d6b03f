"""The folder beside other models of its original, in the report of `evaluate`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.evaluate.frontier import Frontier, read_frontier
from bitnet_train.report.document import Place, Places
from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.report.html import render_html
from bitnet_train.report.markdown import render_markdown
from bitnet_train.report.overview import document
from bitnet_train.report.places import render_places
from scripts import RESULTS
from tests.report.test_report import facts

MEASURED = RESULTS / "frontier_smollm2.json"


@pytest.fixture(scope="module")
def frontier() -> Frontier:
    return read_frontier(str(MEASURED))


def beside(frontier: Frontier, tokens: int) -> EvaluateFacts:
    """Facts whose text wiki.test has so many tokens."""
    made = facts()
    text = made.texts[0]
    student = replace(text.compared.student, tokens=tokens)
    text = replace(text, compared=replace(text.compared, student=student))
    return replace(made, texts=(text,), folder_bytes=61_500_000, frontier=frontier)


def row(page: str) -> list[str]:
    """The table's line on the folder."""
    line = next(line for line in page.splitlines() if line.startswith("| this folder"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_model_of_the_file_and_the_folder_are_in_the_table(frontier: Frontier) -> None:
    page = render_markdown(document(beside(frontier, frontier.texts["wiki.test"].tokens), "mine"))
    assert row(page) == ["this folder", "", "61.5", "3.17x", "–"]
    assert "was not measured on heldout (" in page
    for name in frontier.points:
        assert name.replace("_", "\\_") in page
    assert frontier.original.name.replace("_", "\\_") in page


def test_a_ratio_on_other_tokens_is_not_set_beside_them(frontier: Frontier) -> None:
    assert row(render_markdown(document(beside(frontier, 4711), "mine")))[2:] == ["61.5", "–", "–"]


def test_the_page_has_a_dot_for_every_model_that_was_measured(frontier: Frontier) -> None:
    page = render_html(document(beside(frontier, frontier.texts["wiki.test"].tokens), "mine"))
    on_wiki, on_heldout = (sum(text in point.quality for point in frontier.points.values()) for text in frontier.texts)
    assert page.count("<circle") == (on_wiki + 2) + (on_heldout + 1)
    assert page.count('<circle class="s1"') == 1


def test_dots_lie_further_right_for_more_bytes_and_higher_for_a_worse_ratio() -> None:
    places = tuple(Place(f"m{n}", 10.0 * n, 1.0 + n, 0) for n in range(1, 5))
    drawn = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', render_places(Places("t", ("a",), places)))
    across, down = ([float(pair[axis]) for pair in drawn] for axis in (0, 1))
    assert across == sorted(across)
    assert down == sorted(down, reverse=True)


def test_facts_with_a_frontier_come_back_from_their_file(frontier: Frontier) -> None:
    made = beside(frontier, 5000)
    assert EvaluateFacts.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize("content", [None, "{", '{"points": {}}'])
def test_a_file_that_is_no_result_is_refused_by_name(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "frontier.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises((ConfigError, FormatError), match=re.escape(str(file))):
        read_frontier(str(file))
