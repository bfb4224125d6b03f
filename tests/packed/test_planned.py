"""What is said of a packed folder before training is what it then holds, and every exporter answers of it alike."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest

from bitnet_train.errors import FormatError
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import EXPORTERS
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.converted import ConversionRecord, empty_converted
from bitnet_train.packed import export_packed
from bitnet_train.packed.planned import planned_source
from bitnet_train.packed.source import open_packed
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme

CASES = {
    "llama, tied and biased": {"family": "llama"},
    "a group of inputs": {"family": "odd", "weight": WeightScheme("ternary", "group", 16, scale_dtype="float32")},
    "gpt2": {"family": "gpt2"},
    "1-bit tables": {"family": "odd", "roles": ("attention", "mlp", "embedding", "head")},
    "int8 tables": {"family": "llama", "tables": "int8"},
    "int5 tables": {"family": "odd", "tables": "int5"},
    "int4 tables": {"family": "llama", "tables": "int4"},
}


def planned_of(model, tokenizer, activation="int8", **tables):
    """Return the source of a model of this config and these layers that has no weights."""
    schemes = {name: layer.weight_scheme for name, layer in bit_layers(model).items()}
    record = ConversionRecord.of_schemes(schemes, next(iter(schemes.values())), activation=ActivationScheme(activation))
    return planned_source(empty_converted(deepcopy(model.config), record), tokenizer, **tables)


@pytest.mark.parametrize("name", CASES)
def test_names_shapes_and_layers_are_those_of_the_folder(make_trained, byte_tokenizer, tmp_path, name):
    given = dict(CASES[name])
    rounded = given.pop("tables", "exact")
    tables = {"embedding": rounded, "head": rounded}
    model = make_trained(**given)
    export_packed(model, byte_tokenizer, tmp_path / "out", {}, **tables)
    with open_packed(tmp_path / "out") as real, planned_of(model, byte_tokenizer, **tables) as planned:
        shapes = [{key: entry.shape for key, entry in source.manifest.tensors.items()} for source in (planned, real)]
        assert shapes[0] == shapes[1]
        assert planned.tied == real.tied
        for kind in ("layers", "tables"):
            unsigned = [
                [replace(entry, codes_sha256="", scale_sha256="") for entry in getattr(source, kind).values()]
                for source in (planned, real)
            ]
            assert unsigned[0] == unsigned[1]
        assert set(planned.manifest.files) == set(real.manifest.files) - {"weights.safetensors", "README.md"}
        assert planned.end_tokens == real.end_tokens


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [("binary", "row"), ("binary", "tensor"), ("ternary", "group")], ids=" ".join)
@pytest.mark.parametrize("name", EXPORTERS)
def test_every_exporter_answers_as_it_does_of_the_folder(make_trained, tmp_path, name, scheme):
    for dtype in ("float16", "float32"):
        model = make_trained(weight=WeightScheme(*scheme, group_size=32, learnable_scale=True, scale_dtype=dtype))
        export_packed(model, None, tmp_path / dtype, {})
        with open_packed(tmp_path / dtype) as real, planned_of(model, None) as planned:
            answers = [_answer(EXPORTERS[name], source) for source in (planned, real)]
        assert answers[0] == answers[1]


def _answer(exporter, source):
    try:
        return exporter.check(source, ExportOptions())
    except FormatError as error:
        return str(error)
