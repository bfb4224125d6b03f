"""Rows that are measured in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from bitnet_train.bench.contenders import contenders, llama_contenders, numbers_of_threads
from bitnet_train.bench.row import Memory, Row, merged
from bitnet_train.bench.table import render_rows
from bitnet_train.bench.timing import Workload
from bitnet_train.bench.worker import Task, measure_apart, ways
from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.kernels.isa import available_isas

SMALL = Workload(prompt_tokens=8, new_tokens=4, repeats=2, contexts=(16,))


@pytest.mark.slow
@pytest.mark.parametrize("isa", [available_isas()[0], "reference"])
def test_a_row_tells_what_ran_and_how_fast(exported, isa):
    row = measure_apart(Task(str(exported), "modules", 1, isa, SMALL))
    assert (row.runtime, row.isa, row.num_threads) == ("modules", isa, 1)
    assert len(row.prefill_samples) == len(row.decode_samples) == 2
    assert row.load_s is not None
    assert 0 < row.load_s < 60
    assert list(row.context_ms) == ["16"]
    if sys.platform == "linux":
        assert row.memory.peak is not None
        assert row.memory.process_peak is not None
        assert 0 <= row.memory.peak < row.memory.process_peak


@pytest.mark.slow
def test_a_float_model_is_measured_alike():
    row = measure_apart(Task("tiny", "float", 1, None, replace(SMALL, contexts=())))
    assert (row.runtime, row.isa) == ("float", "torch")
    assert row.decode_tokens_per_s > 0


@pytest.mark.slow
def test_a_folder_that_cannot_be_loaded_is_an_error_with_the_reason(tmp_path):
    with pytest.raises(FormatError, match=r"manifest\.json"):
        measure_apart(Task(str(tmp_path), "native", 1, None, SMALL))


@pytest.mark.slow
def test_the_native_way_comes_first_and_leaves_torch_out(exported):
    assert ways(exported)[-1] == "modules"
    if ways(exported)[0] != "native":
        pytest.skip("no native runtime here")
    task = json.dumps(asdict(Task(str(exported), "native", 1, None, SMALL)))
    code = f"import sys\nfrom bitnet_train.bench.worker import main\nassert main({task!r}) == 0"
    code += "\nassert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def test_contenders_are_every_isa_and_number_of_threads_then_the_rest(exported):
    compiled = [isa for isa in available_isas() if isa != "reference"] or ["reference"]
    calls = contenders(exported, SMALL, [1, 2], [], "tiny")
    tasks = [call.args[0] for call in calls]
    best = ways(exported)[0]
    assert [(task.isa, task.num_threads) for task in tasks if task.way == best] == [
        (isa, threads) for isa in compiled for threads in (1, 2)
    ]
    assert [task.num_threads for task in tasks if task.way == "float"] == [1, 2]
    assert tasks[-1].source == "tiny"


def test_no_numbers_of_threads_are_one_and_all():
    assert numbers_of_threads([]) == sorted({1, *numbers_of_threads([])})
    assert numbers_of_threads([3]) == [3]


def test_what_is_not_there_is_refused_before_anything_runs(exported, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"`bench\.isas` names `abacus`. Allowed here: .*reference"):
        contenders(exported, SMALL, [1], ["abacus"], None)
    assert llama_contenders(None, None, SMALL, [1]) == []
    with pytest.raises(ConfigError, match="there is no such file"):
        llama_contenders(str(tmp_path / "no.gguf"), None, SMALL, [1])
    (tmp_path / "a.gguf").touch()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("BITNET_TRAIN_LLAMA_BENCH", raising=False)
    with pytest.raises(ConfigError, match=r"bench\.llama_bench=PATH"):
        llama_contenders(str(tmp_path / "a.gguf"), None, SMALL, [1])


def test_rounds_merge_into_medians_over_all_samples():
    rounds = [
        Row("native", "avx2", 1, (10.0, 30.0), (1.0, 3.0), 0.1, Memory(1, 2, 100)),
        Row("native", "avx2", 1, (20.0,), (2.0,), 0.3, Memory(3, None, 300), {"128": 1.0}),
    ]
    row = merged(rounds)
    assert (row.prefill_tokens_per_s, row.decode_tokens_per_s) == (20.0, 2.0)
    assert row.load_s == pytest.approx(0.2)
    assert row.memory == Memory(2, 2, 200)
    assert row.context_ms == {"128": 1.0}


def test_a_row_comes_back_from_json_as_it_went():
    row = Row("native", "avx2", 2, (10.0,), (4.0, 5.0), 0.25, Memory(1, 2, 3), {"128": 1.5})
    assert Row.from_dict(json.loads(json.dumps(asdict(row)))) == row
    assert Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_the_table_has_a_line_a_row_and_a_column_a_context():
    rows = [
        Row("native", "avx2", 2, (10.0,), (4.0,), context_ms={"128": 1.0}),
        Row("float", "torch", 2, (1.0,), (1.0,)),
    ]
    table = render_rows(rows, "title")
    assert table.row_count == 2
    assert [column.header for column in table.columns].count("ms after\n128") == 1
