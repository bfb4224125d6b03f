from __future__ import annotations

from pathlib import Path

import pytest

from bitnet_train.errors import FormatError
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.facts import MergeFacts


@pytest.mark.parametrize("content", ["", '{"step": 1', "[" * 20_000, '{"step": ' + "9" * 5_000 + "}", "[]"])
def test_facts_that_are_damaged_name_their_file(content: str, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    (tmp_path / "facts").mkdir()
    (tmp_path / "facts" / "merge.json").write_text(content)
    with pytest.raises(FormatError, match=r"facts/merge\.json"):
        directory.kept(MergeFacts)
