"""What a result file says about where and how its figures were measured; no path of the machine gets into it."""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from bitnet_train.run.directory import made_by
from scripts import ROOT


def describe_run(options: argparse.Namespace) -> dict[str, Any]:
    """Return date, commit, CPU, versions, and the options of the script (of a path only its last part)."""
    plain = {name: value.name if isinstance(value, Path) else value for name, value in vars(options).items()}
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit(),
        "cpu": cpu_name(),
        "cpu_cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "options": plain,
        "made_by": made_by(),
    }


def commit() -> str:
    """Return the commit of this checkout, with `+changes` when files differ from it; "unknown" outside git."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        return f"{name}+changes" if _git("status", "--porcelain", "--untracked-files=no") else name
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()


def cpu_name() -> str:
    """Return the name of the processor with its widest instruction sets, as Linux knows it.

    Clouds call every generation alike ("AMD EPYC"), so family and model stand with it where there are any.
    """
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"model name\s*:\s*(.+)", text)
    flags = set(re.findall(r"\b(?:avx2|avx512\w*|asimd\w*)\b", text))
    kind = re.search(r"cpu family\s*:\s*(\d+)\s*model\s*:\s*(\d+)", text)
    told = f", family {kind[1]} model {kind[2]}" if kind else ""
    return f"{name[1] if name else platform.machine()}{told} ({' '.join(sorted(flags))})"
