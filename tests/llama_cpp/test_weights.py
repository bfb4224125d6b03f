"""ggml's own code reads our blocks as the trained weights, and writes the blocks that we write."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitnet_train import NativeModel
from bitnet_train.exporters.gguf import MODEL_NAME
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import export_as
from bitnet_train.formats.ggml import GGML_TYPES, encode
from bitnet_train.gguf.architecture import architecture_of
from bitnet_train.gguf.file import open_gguf
from bitnet_train.packed.source import open_packed
from bitnet_train.quant.scheme import CODES, WeightScheme
from scripts.llama_cpp.libllama import LlamaCpp, dequantize, quantize

SCHEMES = {
    "binary row": WeightScheme(granularity="row"),
    "binary tensor": WeightScheme(granularity="tensor"),
    "binary group": WeightScheme(granularity="group", group_size=256),
    "ternary row": WeightScheme(name="ternary", granularity="row"),
    "ternary group": WeightScheme(name="ternary", granularity="group", group_size=256),
    "2-plane row": WeightScheme(granularity="row", planes=2),
    "3-plane group": WeightScheme(granularity="group", group_size=32, planes=3),
    "4-plane group": WeightScheme(granularity="group", group_size=64, planes=4),
}
ONE_BIT = [name for name, kind in GGML_TYPES.items() if kind.is_one_bit]
DRAWN = {kind: [(-1, 1)] if kind == "q1_0" else [(-1, 1), (-1, 0, 1)] for kind in ONE_BIT}
FITTING = [
    (kind, name)
    for kind in GGML_TYPES
    for name, scheme in SCHEMES.items()
    if set(CODES[scheme.code_set]) <= set(GGML_TYPES[kind].codes) and (scheme.planes == 1) == (kind in ONE_BIT)
]


@pytest.mark.parametrize(("file_type", "scheme"), FITTING)
def test_ggml_decodes_every_layer_of_the_file_to_the_packed_weights(make_packed, tmp_path, file_type, scheme):
    packed = make_packed(SCHEMES[scheme])
    export_as("gguf", packed, tmp_path / "out", ExportOptions(type=file_type))
    file = open_gguf(tmp_path / "out" / MODEL_NAME)
    with open_packed(packed) as source:
        architecture = architecture_of(source.config)
        for name, entry in source.layers.items():
            tensor = file.tensors[architecture.to_gguf(f"{name}.weight")]
            assert tensor.type_name.lower() == file_type
            found = torch.from_numpy(dequantize(file_type, file.rows(tensor.name), entry.num_inputs))
            assert torch.equal(architecture.rows_from_gguf(name, found, source.config), source.dense(name)), name


@pytest.mark.parametrize(("file_type", "codes"), [(kind, codes) for kind in ONE_BIT for codes in DRAWN[kind]])
def test_our_blocks_are_those_of_ggmls_own_quantiser(file_type, codes):
    generator = np.random.default_rng(0)
    drawn = torch.from_numpy(generator.choice(codes, (48, 768)).astype(np.int8))
    scale = torch.from_numpy(generator.uniform(0.01, 2.0, (48, 3)).astype(np.float16))
    dense = drawn.float() * scale.float().repeat_interleave(256, 1)
    assert np.array_equal(encode(drawn, scale, file_type).numpy(), quantize(file_type, dense.numpy()))


@pytest.mark.parametrize("file_type", GGML_TYPES)
def test_the_texts_of_both_are_alike(make_packed, tmp_path, tokenizer, file_type):
    """Greedy choices are equal until two tokens are closer than the rounding of activations moves them."""
    packed = make_packed(SCHEMES[{"q4_0": "3-plane group", "q5_0": "4-plane group"}.get(file_type, "binary row")])
    export_as("gguf", packed, tmp_path / "out", ExportOptions(type=file_type))
    ours = NativeModel.load(packed, num_threads=1)
    ids = tokenizer("import os\n\nclass ").input_ids
    with LlamaCpp(tmp_path / "out" / MODEL_NAME) as model:
        theirs, chosen = model.greedy(ids, 24), ours.generate_ids(ids, 24, stop_ids=())
        same = next((i for i, (a, b) in enumerate(zip(theirs, chosen, strict=True)) if a != b), 24)
        assert same >= 4
        if same < 24:
            context = [*ids, *chosen[:same]]
            here, there = ours.logits(context)[-1], model.logits(context)[-1]
            assert here[chosen[same]] - here[theirs[same]] <= 2 * np.abs(here - there).max()
