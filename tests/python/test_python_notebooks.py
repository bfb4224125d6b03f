"""The notebooks run from top to bottom in a kernel of their own, offline, and training shows one bar, not a wall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def executed(name: str, folder: Path) -> dict[str, list[Any]]:
    """Run a notebook; return the outputs of its cells by the cell's text."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_outputs(name: str) -> None:
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    assert [cell.source for cell in code if cell.outputs or cell.execution_count is not None] == []


@pytest.mark.slow
def test_a_model_is_converted_trained_and_written_under_one_bar(tmp_path: Path) -> None:
    cells = executed("convert_and_train.ipynb", tmp_path)
    (plan,) = next(outputs for source, outputs in cells.items() if "bt.convert" in source)
    assert plan.data["text/html"].startswith("<table>")
    assert "become 1-bit" in plan.data["text/plain"]
    bar, *more = next(outputs for source, outputs in cells.items() if "bt.fit" in source)
    assert more == [], "one output, drawn over"
    assert bar.data["text/plain"].startswith("step 12/12  loss ")
    assert 'value="12" max="12"' in bar.data["text/html"]
    theirs = ("Loading weights", "tqdm")  # transformers' own bar, and its wish for widgets
    said = [output.text.strip() for outputs in cells.values() for output in outputs if output.get("name") == "stderr"]
    assert [text for text in said if text and not any(word in text for word in theirs)] == []


@pytest.mark.slow
def test_the_inside_of_a_layer_is_as_the_notebook_says(tmp_path: Path) -> None:
    cells = executed("inside_a_layer.ipynb", tmp_path)
    assert not [output for outputs in cells.values() for output in outputs if output.output_type == "error"]
