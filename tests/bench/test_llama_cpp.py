"""llama.cpp's side of the comparison, with a stand-in for its program that prints what the real one prints."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from bitnet_train.bench.llama_cpp import ENVIRONMENT_VARIABLE, find_llama_bench, llama_row
from bitnet_train.bench.timing import Workload
from bitnet_train.errors import ConfigError, FormatError

STAND_IN = """#!{python}
import json, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if words["-m"].endswith("broken.gguf"):
    sys.exit("llama_bench: error: failed to load model 'broken.gguf'")
common = {{"build_commit": "0c1e570", "model_type": "llama ?B TQ2_0 - 2.06 bpw ternary", "n_threads": int(words["-t"])}}
repeats, deep = int(words["-r"]), int(words.get("-d", "0"))
tests = []
if words["-p"] != "0":
    rates = [100.0 + i for i in range(repeats)]
    tests.append({{**common, "n_prompt": int(words["-p"]), "n_gen": 0, "samples_ts": rates, "avg_ts": 101.0}})
rates = [10.0 + i for i in range(repeats)]
decode = {{"n_prompt": 0, "n_gen": int(words["-n"]), "samples_ts": rates, "avg_ts": 1000.0 / (1 + deep)}}
tests.append({{**common, **decode}})
print(json.dumps(tests))
"""


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    path = tmp_path / "llama-bench"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    return path


def test_its_samples_become_a_row_of_medians(tool: Path, tmp_path: Path):
    row = llama_row(tool, tmp_path / "model.gguf", 2, Workload(128, 64, 3, contexts=(99,)))
    assert (row.runtime, row.isa, row.num_threads) == ("llama.cpp TQ2_0 - 2.06 bpw ternary", "0c1e570", 2)
    assert (row.prefill_tokens_per_s, row.decode_tokens_per_s) == (101.0, 11.0)
    assert row.decode_samples == (10.0, 11.0, 12.0)
    assert row.context_ms == {"99": pytest.approx(100.0)}
    assert json.loads(json.dumps(row.to_dict()))["ms_per_token"] == pytest.approx(1000 / 11)


def test_it_ends_when_whoever_watches_has_had_enough(tmp_path: Path):
    program = tmp_path / "llama-bench"
    program.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    program.chmod(0o755)
    seen = []

    def watch() -> None:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        llama_row(program, tmp_path / "model.gguf", 1, Workload(), watch=watch)
    assert time.monotonic() - start < 30


def test_what_it_cannot_load_is_an_error_with_its_words(tool: Path, tmp_path: Path):
    with pytest.raises(FormatError, match=r"cannot run .*broken\.gguf: .*failed to load model"):
        llama_row(tool, tmp_path / "broken.gguf", 1, Workload())


def test_it_is_found_where_it_was_named_else_on_the_path(tool: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tool.parent / "nothing"))
    assert find_llama_bench() is None
    assert find_llama_bench(str(tool)) == tool
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tool))
    assert find_llama_bench() == tool
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    monkeypatch.setenv("PATH", str(tool.parent))
    assert find_llama_bench() == tool


def test_a_program_that_was_named_and_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match=r"`bench\.llama_bench=/nowhere/llama-bench` is no program"):
        find_llama_bench("/nowhere/llama-bench")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "/nowhere/llama-bench")
    with pytest.raises(ConfigError, match=ENVIRONMENT_VARIABLE):
        find_llama_bench()
