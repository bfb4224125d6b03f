from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import torch

from bitnet_train.errors import FormatError
from bitnet_train.exporters.c_array import ALIGNMENT_BYTES, read_back
from bitnet_train.exporters.registry import export_as
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.packed import export_packed
from bitnet_train.packed.source import open_packed
from bitnet_train.quant.scheme import GRANULARITIES, WeightScheme
from tests.fixtures.schemes import CODE_SETS, weight_scheme

COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
needs_gcc = pytest.mark.skipif("gcc" not in COMPILERS, reason="needs gcc")
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wno-sign-conversion"]
SANITIZED = ["-O1", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def written(model, folder, **tables):
    export_packed(model, None, folder / "packed", {}, **tables)
    return export_as("c_array", folder / "packed", folder / "out")


def run_example(folder, compiler, flags):
    subprocess.run([compiler, *STRICT, *flags, "example.c", "-o", "../example"], cwd=folder, check=True)
    return subprocess.run(["../example", "model.bin"], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.toolchain
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", CODE_SETS)
def test_the_example_gives_the_very_outputs_of_our_kernel(make_trained, tmp_path, name, granularity, compiler):
    scheme = weight_scheme(name, granularity, 16, learnable_scale=True)
    record = written(make_trained(weight=scheme), tmp_path)
    done = run_example(tmp_path / "out", compiler, ["-O2", "-ffp-contract=off"])
    assert done.returncode == 0, done.stdout
    assert record.facts["example_layer"] == "model.layers.0.self_attn.k_proj"
    assert done.stdout == "model.layers.0.self_attn.k_proj: 32 of 32 outputs are equal\n"


@pytest.mark.toolchain
@needs_gcc
@pytest.mark.parametrize(
    "settings",
    [
        {"family": "odd"},
        {"activation": "int4"},
        {"family": "gpt2"},
        {"weight": WeightScheme("ternary", scale_dtype="float32")},
    ],
    ids=str,
)
def test_the_example_reads_nothing_it_should_not(make_trained, tmp_path, settings):
    """Odd widths, 4-bit inputs, no bias, float32 scales; under the address and undefined-behaviour sanitisers."""
    written(make_trained(**settings), tmp_path)
    done = run_example(tmp_path / "out", "gcc", SANITIZED)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.toolchain
@needs_gcc
def test_the_example_knows_a_scale_of_zero(make_trained, tmp_path):
    model = make_trained(weight=WeightScheme("binary", "row", learnable_scale=True))
    with torch.no_grad():
        for layer in bit_layers(model).values():
            layer.scale[::3] = 0
    written(model, tmp_path)
    done = run_example(tmp_path / "out", "gcc", SANITIZED)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.slow
@pytest.mark.toolchain
@needs_gcc
def test_the_example_notices_a_changed_weight(make_trained, tmp_path):
    written(make_trained(weight=WeightScheme("binary", "row")), tmp_path)
    header = (tmp_path / "out" / "model.h").read_text()
    row = re.search(r'\{"model\.layers\.0\.self_attn\.k_proj", (.+)\}', header)
    data = bytearray((tmp_path / "out" / "model.bin").read_bytes())
    data[int(row[1].split(", ")[10].rstrip("u"))] ^= 1
    (tmp_path / "out" / "model.bin").write_bytes(data)
    done = run_example(tmp_path / "out", "gcc", ["-O2", "-ffp-contract=off"])
    assert done.returncode == 1
    assert "31 of 32 outputs are equal" in done.stdout
    (tmp_path / "out" / "model.bin").write_bytes(data[:-1])
    assert run_example(tmp_path / "out", "gcc", ["-O2", "-ffp-contract=off"]).returncode == 2


def test_everything_comes_back_through_the_header_alone(make_trained, tmp_path):
    model = make_trained(weight=WeightScheme("ternary", "group", 32), roles=("attention", "mlp", "embedding"))
    record = written(model, tmp_path, head="int5")
    with open_packed(tmp_path / "packed") as source:
        found = dict(read_back(tmp_path / "out"))
        assert {name.removesuffix(".weight") for name in found} == {
            name.removesuffix(".weight") for name in source.weight_names()
        }
        assert all(torch.equal(values, source.dense(name)) for name, values in found.items())
        assert "model.rotary_emb.inv_freq" in (tmp_path / "out" / "model.h").read_text()
    assert record.facts["layers"] == 15


@pytest.mark.parametrize("table", ["exact", "int8", "int4"])
def test_a_tied_head_points_to_the_embedding(make_trained, tmp_path, table):
    written(make_trained(), tmp_path, embedding=table, head=table)
    header = (tmp_path / "out" / "model.h").read_text()
    part = "weight" if table == "exact" else "codes"
    rows = re.findall(rf'\{{"(?:lm_head|model\.embed_tokens)\.{part}", (.+)\}},', header)
    assert len(rows) == 2
    assert rows[0] == rows[1]
    found = dict(read_back(tmp_path / "out"))
    names = ["lm_head.weight", "model.embed_tokens.weight"] if table == "exact" else ["lm_head", "model.embed_tokens"]
    assert torch.equal(*(found[name] for name in names))


def test_every_array_of_a_layer_is_aligned_and_the_header_states_the_length(make_trained, tmp_path):
    record = written(make_trained(family="odd", weight=WeightScheme("binary", "tensor")), tmp_path)
    header = (tmp_path / "out" / "model.h").read_text()
    assert (tmp_path / "out" / "model.bin").stat().st_size == record.facts["num_bytes"]
    assert f"#define BITNET_MODEL_BYTES {record.facts['num_bytes']}u" in header
    layers = re.findall(r'    \{"[^"]+", BITNET_(?:LINEAR|EMBEDDING), (.+)\},', header)
    assert len(layers) == record.facts["layers"]
    for row in layers:
        assert all(int(word.rstrip("u")) % ALIGNMENT_BYTES == 0 for word in row.split(", ")[8:10])


@pytest.mark.parametrize("activation", ["none", "sign"])
def test_a_model_without_integer_inputs_has_no_example(make_trained, tmp_path, activation):
    record = written(make_trained(activation=activation), tmp_path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.bin", "model.h", "README.md", "export.json"}
    assert record.facts["example_layer"] is None
    assert len(dict(read_back(tmp_path / "out"))) == 14 + 8 + 6 + 1  # the tied head is named too


@pytest.mark.toolchain
@needs_gcc
def test_the_header_compiles_in_two_places_without_a_warning(make_trained, tmp_path):
    written(make_trained(), tmp_path)
    (tmp_path / "out" / "a.c").write_text('#include "model.h"\n#include "model.h"\nint first = BITNET_NUM_LAYERS;\n')
    (tmp_path / "out" / "b.cpp").write_text('#include "model.h"\nint second = bitnet_layers[0].inputs;\n')
    subprocess.run(["gcc", *STRICT, "-c", "a.c", "-o", "a.o"], cwd=tmp_path / "out", check=True)
    subprocess.run(["g++", "-Wall", "-Wextra", "-Werror", "-c", "b.cpp", "-o", "b.o"], cwd=tmp_path / "out", check=True)


def test_a_damaged_header_or_binary_is_refused(make_trained, tmp_path):
    written(make_trained(), tmp_path)
    data = (tmp_path / "out" / "model.bin").read_bytes()
    (tmp_path / "out" / "model.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"model\.bin ends before byte \d+"):
        dict(read_back(tmp_path / "out"))
    (tmp_path / "out" / "model.h").write_text("")
    with pytest.raises(FormatError, match="describes no layer"):
        dict(read_back(tmp_path / "out"))
