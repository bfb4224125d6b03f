"""`python -m scripts.frontier` with the real llama.cpp, on a small model and two texts."""

from __future__ import annotations

import gzip
import json

import pytest

from bitnet_train.__main__ import main as bitnet_train
from bitnet_train.exporters.gguf import MODEL_NAME
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import export_as
from bitnet_train.gguf.file import open_gguf
from bitnet_train.packed.names import WEIGHTS_NAME
from bitnet_train.quant.scheme import WeightScheme
from scripts.frontier.__main__ import main
from scripts.llama_cpp.libllama import quantize_file

pytestmark = pytest.mark.slow
WINDOWS = ("--window=32", "--windows=2", "--threads=1", "--rounds=1", "--repeats=1", "--new-tokens=4")
TYPES = ("Q8_0", "IQ2_XXS", "TQ1_0")


@pytest.fixture(scope="module")
def folder(make_packed, tmp_path_factory):
    """An original as a float GGUF, two texts, and one of the importance matrix."""
    folder = tmp_path_factory.mktemp("frontier")
    export_as("gguf", make_packed(WeightScheme(granularity="row")), folder / "out", ExportOptions(type="q1_0"))
    quantize_file(folder / "out" / MODEL_NAME, folder / "original.gguf", "f32", allow_requantize=True)
    code = "".join(f"def add_{n}(x):\n    return x + {n}\n\n" for n in range(40))
    (folder / "code.txt").write_text(code, newline="\r\n")
    rows = "".join(json.dumps({"text": f"Sentence {n} of a text."}) + "\n" for n in range(40))
    (folder / "prose.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    (folder / "other.txt").write_text("import os\n\n\nclass Reader:\n    pass\n" * 20)
    return folder


@pytest.fixture(scope="module")
def packed(make_packed):
    """The same model in other 1-bit weights."""
    return make_packed(WeightScheme(name="ternary", granularity="row"), tables="int8")


@pytest.fixture(scope="module")
def words(folder):
    """What every call of these tests says."""
    texts = (f"--text=code={folder / 'code.txt'}", f"--text=prose={folder / 'prose.jsonl.gz'}")
    return [f"--original={folder / 'original.gguf'}", f"--work={folder / 'work'}", *texts, *WINDOWS]


@pytest.fixture(scope="module")
def measured(folder, packed, words):
    """The result file of types, to which a folder was added by a second run."""
    out = f"--out={folder / 'result.json'}"
    main([*words, out, f"--importance={folder / 'other.txt'}", "--types", *TYPES])
    main([*words, out, f"--add=ours={packed}"])
    return json.loads((folder / "result.json").read_text())


def test_both_sides_lie_in_one_file(measured):
    assert set(measured["points"]) == {*TYPES, "ours"}
    assert measured["refused"] == {}
    assert [run["options"]["types"] for run in measured["runs"]] == [list(TYPES), []]
    assert measured["points"]["ours"]["run"] == 1
    for point in (measured["original"], *measured["points"].values()):
        assert point["decode"]["tokens_per_s"] > 0
    assert measured["points"]["ours"]["decode"]["runtime"] == "native"


def test_a_wide_type_keeps_the_original_and_a_narrow_one_less(measured):
    for text in ("code", "prose"):
        wide, narrow = (measured["points"][name]["quality"][text] for name in ("Q8_0", "IQ2_XXS"))
        assert wide["ratio"] == pytest.approx(1, abs=0.05)
        assert 0 <= wide["kl_nats"] < narrow["kl_nats"] / 10
        assert wide["top1_agreement"] > narrow["top1_agreement"]


def test_both_engines_agree_on_the_original(measured):
    theirs, ours = measured["original"]["perplexity"]["llama.cpp"], measured["original"]["perplexity"]["ours"]
    assert theirs == pytest.approx(ours, rel=0.05)  # ours has its weights rounded to bfloat16, as a GGUF is read


def test_ours_is_what_evaluate_says(measured, folder, packed, capsys):
    limits = ("evaluate.window_tokens=32", "evaluate.max_tokens=64", f"evaluate.against={folder / 'original.gguf'}")
    words = ("evaluate", str(packed), f"evaluate.texts=[{folder / 'code.txt'}]", *limits, "--json")
    capsys.readouterr()
    assert bitnet_train(list(words)) == 0
    (told,) = json.loads(capsys.readouterr().out)["texts"]
    found = measured["points"]["ours"]["quality"]["code"]
    assert told["student"]["tokens"] == measured["texts"]["code"]["tokens"]
    assert told["student"]["perplexity"] == found["perplexity"]
    assert (told["perplexity_ratio"], told["kl"], told["top1_agreement"]) == (
        found["ratio"],
        found["kl_nats"],
        found["top1_agreement"],
    )


def test_sizes_are_those_of_the_files(measured, packed, folder):
    ours = measured["points"]["ours"]
    assert ours["file_bytes"] == sum(path.stat().st_size for path in packed.iterdir())
    assert 0 < (packed / WEIGHTS_NAME).stat().st_size - ours["weight_bytes"] < 20_000  # the header
    assert set(ours["stored_as"]) >= {"ternary per row", "int8"}
    (file,) = (folder / "work").glob("*/IQ2_XXS.gguf")
    theirs = measured["points"]["IQ2_XXS"]
    assert theirs["file_bytes"] == file.stat().st_size
    assert theirs["weight_bytes"] == sum(tensor.num_bytes for tensor in open_gguf(file).tensors.values())
    assert theirs["bits_per_weight"] == 8 * theirs["weight_bytes"] / measured["original"]["parameters"]


def test_points_on_other_tokens_are_refused(measured, folder, words, packed):
    out = f"--out={folder / 'result.json'}"
    with pytest.raises(SystemExit, match=r"its text code is 2 windows of 32 tokens.*name another file with `--out`"):
        main([*words, "--windows=1", out, f"--add=other={packed}"])
    with pytest.raises(SystemExit, match=r"has no such point. Measure it first"):
        main([*words, out, "--only=decode", f"--add=other={packed}"])
    assert json.loads((folder / "result.json").read_text()) == measured


def test_what_llama_cpp_refuses_is_listed_with_its_words(make_packed, folder, words):
    narrow = make_packed(WeightScheme(granularity="group", group_size=64), hidden_size=320)
    export_as("gguf", narrow, folder / "narrow", ExportOptions(type="q2_0"))
    out = f"--out={folder / 'refused.json'}"
    given = [f"--original={folder / 'narrow' / MODEL_NAME}", f"--importance={folder / 'other.txt'}", out]
    main([*words, *given, "--only=quality", "--types", "Q1_0", "Q4_0"])
    result = json.loads((folder / "refused.json").read_text())
    assert list(result["points"]) == ["Q4_0"]
    assert "no tensor type fallback is defined" in result["refused"]["Q1_0"]
