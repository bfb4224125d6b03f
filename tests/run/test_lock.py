"""One process at a time writes in a run: whoever comes second is told who is there, and the dead are followed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bitnet_train.errors import RunInUseError
from bitnet_train.process import this_process
from bitnet_train.run.lock import LOCK_FILE, locked, owner_of

HOLDS = """
import sys; from pathlib import Path; from bitnet_train.errors import RunInUseError; from bitnet_train.run.lock import *
sys.stdin.readline()
try:
    with locked(Path(sys.argv[1]), "bitnet-train train"):
        print("holds", flush=True); sys.stdin.readline()
except RunInUseError as error:
    print(error, flush=True)
"""


def holder(root: Path) -> subprocess.Popen[str]:
    """Start a process that takes the lock at a first line on its standard input, and gives it back at a second."""
    command = [sys.executable, "-c", HOLDS, str(root)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def write_lock(root: Path, **changed: object) -> None:
    said = {**asdict(this_process()), "what": "bitnet-train run", "since": "2026-11-29 18:20:42", **changed}
    (root / LOCK_FILE).write_text(json.dumps(said))


def test_a_second_process_is_refused_by_the_name_of_the_first(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        assert go(first) == "holds"
        said = rf"is in use: `bitnet-train train`, process {first.pid} on .*Wait for that one or end it.*run\.dir"
        with pytest.raises(RunInUseError, match=said), locked(tmp_path, "bitnet-train merge"):
            pass
        first.communicate("\n")
    with locked(tmp_path, "bitnet-train merge"):
        assert owner_of(tmp_path).process == this_process()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_owner_is_followed(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        assert go(first) == "holds"
        first.kill()
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet waited for
        with locked(tmp_path, "bitnet-train merge"):
            assert owner_of(tmp_path).what == "bitnet-train merge"
        first.wait()


@pytest.mark.skipif(not this_process().start, reason="the start of a process is not known here")
def test_the_id_of_a_dead_owner_that_is_used_again_does_not_hold_the_lock(tmp_path: Path) -> None:
    write_lock(tmp_path, start="0" * 12)
    with locked(tmp_path, "bitnet-train merge"):
        pass


def test_an_owner_on_another_machine_is_believed_and_the_file_to_delete_is_named(tmp_path: Path) -> None:
    write_lock(tmp_path, host="elsewhere", pid=1)
    said = rf"process 1 on elsewhere, since 2026-11-29 18:20:42.*delete {tmp_path / LOCK_FILE}\."
    with pytest.raises(RunInUseError, match=said), locked(tmp_path, "bitnet-train merge"):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "here"}', "null", "[" * 20_000])
def test_a_lock_that_says_nothing_is_nobodys(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_FILE).write_text(content)
    with locked(tmp_path, "bitnet-train merge"):
        assert owner_of(tmp_path).what == "bitnet-train merge"


def test_of_many_that_follow_a_dead_owner_at_once_one_gets_the_lock(tmp_path: Path) -> None:
    write_lock(tmp_path, start="0" * 12)
    processes = [holder(tmp_path) for _ in range(5)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.stdout.readline().strip() for process in processes]
    assert sorted(line == "holds" for line in said) == [False] * 4 + [True]
    owner = processes[said.index("holds")]
    assert all(f"process {owner.pid} " in line for line in said if line != "holds")
    for process in processes:
        process.communicate("\n")
    assert list(tmp_path.iterdir()) == []


def test_a_fork_of_the_owner_does_not_give_the_lock_back(tmp_path: Path) -> None:
    with locked(tmp_path, "bitnet-train train"):
        child = os.fork()
        if child == 0:
            try:
                with locked(tmp_path / "other", "x"):
                    pass
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert owner_of(tmp_path).process == this_process()


def test_a_lock_that_another_one_took_meanwhile_is_left(tmp_path: Path) -> None:
    with locked(tmp_path, "bitnet-train train"):
        other = replace(this_process(), pid=1, host="elsewhere")
        write_lock(tmp_path, **asdict(other))
    assert owner_of(tmp_path).process == other
