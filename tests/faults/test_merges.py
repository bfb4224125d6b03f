"""F7 to F9, F14 to F16 and F41 for a merge: whatever ends it, what was merged before is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.commands import Warm
from tests.faults.injected import Limit, Signal
from tests.faults.runs import MERGING, RENAME, copy_of, files_of, left_over
from tests.faults.test_disk import SMALL, check_full

SWAPPING = 2  # the earlier merge has stepped aside, the new one has not its name yet
MOMENTS = {"weights": (MERGING, 1), "between the renames": (RENAME, SWAPPING)}


@pytest.mark.parametrize(
    ("name", "code", "moment"), [("SIGTERM", 143, "weights"), ("SIGINT", 130, "between the renames")]
)
def test_a_merge_that_is_asked_to_end_leaves_the_earlier_one(
    name: str, code: int, moment: str, warm: Warm, packed: Path, tmp_path: Path
) -> None:
    run_dir = copy_of(packed, tmp_path)
    before, (call, number) = files_of(run_dir), MOMENTS[moment]
    done = warm.run(tmp_path, "merge", run_dir, faults=(Signal(call, name, number=number),))
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert files_of(run_dir) == before


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_merge_that_is_killed_leaves_what_the_next_start_clears_away(
    moment: str, warm: Warm, packed: Path, tmp_path: Path
) -> None:
    run_dir = copy_of(packed, tmp_path)
    before, (call, number) = files_of(run_dir), MOMENTS[moment]
    done = warm.run(tmp_path, "merge", run_dir, faults=(Signal(call, "SIGKILL", number=number),))
    assert done.code == -9, done.err
    assert left_over(run_dir) != []
    assert warm.run(tmp_path, "export", run_dir, "export.force=true").code == 0, "it starts from the earlier merge"
    assert left_over(run_dir) == []
    merged = {name: content for name, content in before.items() if name.startswith("merged/")}
    assert merged.items() <= files_of(run_dir).items()


def test_a_merge_that_finds_no_room_leaves_the_earlier_one(warm: Warm, packed: Path, tmp_path: Path) -> None:
    run_dir = copy_of(packed, tmp_path)
    before = files_of(run_dir)
    done = warm.run(tmp_path, "merge", run_dir, faults=(Limit("RLIMIT_FSIZE", SMALL, MERGING),))
    assert done.code == 1, done.err
    check_full(done.said, run_dir / "merged")
    assert files_of(run_dir) == before
