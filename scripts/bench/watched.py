"""Run a command and watch how much memory of its own it holds: mapped files do not count, the system can drop them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

WATCH_S = 0.02


def run_watched(command: Sequence[str], cores: Sequence[int]) -> tuple[str, int]:
    """Run `command` pinned to `cores`; return what it printed and the largest RssAnon seen, in bytes."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    most = 0
    while process.poll() is None:
        most = max(most, own_memory(process.pid))
        time.sleep(WATCH_S)
    assert process.stdout is not None
    printed = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ... failed with code {process.returncode}")
    return printed, most


def own_memory(process_id: int) -> int:
    """Return RssAnon of a process in bytes, 0 once it is gone."""
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split() for line in lines if line.startswith("RssAnon:")]
    return int(found[0][1]) * 1024 if found else 0
