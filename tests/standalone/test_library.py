"""The C library computes what `NativeModel` does, `==`, and says what is wrong."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import pytest

import bitnet_train as bt
from bitnet_train.quant.scheme import WeightScheme
from tests.fixtures.native_folders import FAMILY_OF_EACH_CLASS, IDS
from tests.standalone.library import OnToken, Sampling

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.toolchain]

WEIGHTS = {
    "binary": WeightScheme("binary", "row"),
    "ternary": WeightScheme("ternary", "group", 32),
    "one scale": WeightScheme("ternary", "tensor"),
    "2 planes": WeightScheme("binary", "group", 32, planes=2),
}
CASES = [
    *({"family": family} for family in FAMILY_OF_EACH_CLASS),
    {"family": "llama_biased_and_tied"},
    {"family": "phi3_of_a_part", "weight": WEIGHTS["ternary"]},
    *({"family": "llama", "weight": weight} for weight in WEIGHTS.values()),
    {"family": "llama", "roles": ("attention", "embedding", "head")},
    {"family": "llama", "activation": "int4"},
    {"family": "llama", "embedding": "int8", "head": "int8"},
    {"family": "llama", "embedding": "int4", "head": "int5"},
    {"family": "llama_biased_and_tied", "embedding": "int4", "head": "int4"},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values()))[:60])
def test_logits_and_tokens_are_those_of_python(case, native, load):
    folder = native(case.pop("family"), **case) if "family" in case else native(**case)
    ours, python = load(folder), bt.NativeModel.load(folder, num_threads=1, verify=False)
    with ours.session() as session:
        logits = ours.eval(session, IDS)
    assert np.array_equal(logits, python.logits(IDS)[-1])
    assert ours.generate(IDS, 16) == python.generate_ids(IDS, 16)


@pytest.mark.parametrize("threads", [1, 2])
def test_reading_in_parts_gives_the_same_logits(native, load, threads):
    ours = load(native(), threads)
    with ours.session() as whole, ours.session() as parts:
        expected = ours.eval(whole, IDS)
        ours.eval(parts, IDS[:7])
        assert np.array_equal(ours.eval(parts, IDS[7:]), expected)


@pytest.mark.parametrize("cache", ["float32", "int8"])
def test_drawn_tokens_are_those_of_python_with_the_same_seed(native, load, cache):
    folder = native()
    python = bt.NativeModel.load(folder, num_threads=1, verify=False, cache_dtype=cache)
    how = {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.2, "seed": 7}
    expected = python.generate_ids(IDS, 24, **how)
    assert load(folder).generate(IDS, 24, Sampling(**how), cache=int(cache == "int8")) == expected


def test_a_callback_ends_the_text_and_a_model_says_what_it_is(native, load):
    ours = load(native())
    assert ours.generate(IDS, 16, most=3) == ours.generate(IDS, 3)
    info = ours.info
    assert (info.vocab, info.context, info.num_end_tokens) == (258, 96, 1)
    assert info.weight_bytes > 0
    assert ours.c.bitnet_version().decode() == bt.__version__


def test_wrong_calls_are_refused_with_the_reason(native, load):
    ours = load(native())
    with ours.session(4) as session:
        for ids, reason in (
            ([300], "token 300 is not in the vocabulary"),
            ([1] * 5, "needs 5 positions"),
            ([], "no token"),
        ):
            with pytest.raises(RuntimeError, match=reason):
                ours.eval(session, ids)
        ours.eval(session, [1, 2, 3, 4])  # nothing had been read
    for most, cache, reason in ((1000, 0, "`max_tokens` is 1000"), (1, 5, "`cache` is 5")):
        with pytest.raises(RuntimeError, match=reason), ours.session(most, cache):
            pass
    with pytest.raises(RuntimeError, match="temperature"):
        ours.generate(IDS, 4, Sampling(-1.0, 0, 1.0, 0.0, 1.0, 0))
    assert ours.c.bitnet_generate(None, None, 0, 1, None, OnToken(0), None) == -1
    assert ours.c.bitnet_last_error() == b"`session` is NULL"
    ours.c.bitnet_free(None)
    ours.c.bitnet_session_free(None)


def test_a_session_outlives_its_model(native, c):
    model = c.bitnet_load(str(native()).encode(), 1)
    session = c.bitnet_session_new(model, 0, 0)
    c.bitnet_free(model)
    assert c.bitnet_eval(session, (ctypes.c_int32 * 1)(5), 1, None) == 0
    c.bitnet_session_free(session)


def test_a_folder_of_before_is_told_what_makes_the_file(make_folder, load, tmp_path):
    with pytest.raises(RuntimeError, match=r"no native\.json.*bitnet-train import model.source="):
        load(make_folder())
    with pytest.raises(RuntimeError, match="no packed model"):
        load(tmp_path)


def test_a_newer_file_is_refused(native, load, tmp_path):
    import shutil

    folder = shutil.copytree(native(), tmp_path / "newer")
    body = json.loads((folder / "native.json").read_text())
    (folder / "native.json").write_text(json.dumps(body | {"schema": 2}))
    with pytest.raises(RuntimeError, match=r"has schema 2 .* reads 1"):
        load(folder)
