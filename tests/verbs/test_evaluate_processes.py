"""`bitnet-train evaluate` in two processes: texts are read in turns, and every figure is that of one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


def evaluated(command: list[str], folder: Path, text: Path, *, is_shared: bool) -> dict:
    words = [str(folder), f"evaluate.texts=[{text}]", "evaluate.window_tokens=32", "evaluate.max_tokens=2000"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    given = [*command, "bitnet_train", "evaluate", *words, "trainer.num_threads=1", "--json"]
    done = subprocess.run(given, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("2 processes share the texts.") == is_shared, "one of them tells"
    return json.loads(done.stdout)


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(finished: Path, tmp_path: Path) -> None:
    text = tmp_path / "prose.txt"
    text.write_text(" ".join(f"word{number * 7}" for number in range(3000)))
    run_dir = shutil.copytree(finished, tmp_path / "run")
    one = evaluated([sys.executable, "-m"], run_dir, text, is_shared=False)
    two = evaluated(TORCHRUN, run_dir, text, is_shared=True)
    assert [text["name"] for text in one["texts"]] == ["held-out", "prose"]
    assert one["texts"][1]["student"]["tokens"] > 8 * 32, "several batches"
    assert one["texts"] == two["texts"], "floats too: sums of batches are added in the same order"
