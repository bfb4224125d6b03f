"""llama.cpp's graph calls back with the inputs of its products, and its quantisers follow what is made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitnet_train.exporters.gguf import MODEL_NAME
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import export_as
from bitnet_train.gguf.file import open_gguf
from bitnet_train.quant.scheme import WeightScheme
from scripts.llama_cpp.float_model import float_model
from scripts.llama_cpp.importance import importance_of
from scripts.llama_cpp.libllama import LlamaCpp, quantize_file

ROLES = {
    "attn_q": "self_attn.q_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROWS = [list(range(40, 72)), list(range(90, 107))]


@pytest.fixture(scope="module")
def dense_file(make_packed, tmp_path_factory):
    """A packed model as a float32 GGUF, and the folder that it was made from."""
    packed = make_packed(WeightScheme(granularity="row"))
    folder = tmp_path_factory.mktemp("dense")
    export_as("gguf", packed, folder / "out", ExportOptions(type="q1_0"))
    quantize_file(folder / "out" / MODEL_NAME, folder / "f32.gguf", "f32", allow_requantize=True)
    return packed, folder / "f32.gguf"


def test_importance_is_the_mean_square_of_each_input(dense_file):
    packed, file = dense_file
    model, expected = float_model(packed), {}
    modules = {f"blk.{n}.{name}.weight": f"model.layers.{n}.{role}" for n in (0, 1) for name, role in ROLES.items()}
    for name, module in modules.items():
        inputs = expected[name] = []
        model.get_submodule(module).register_forward_pre_hook(lambda _, given, kept=inputs: kept.append(given[0][0]))
    with torch.no_grad():
        for ids in ROWS:
            model(torch.tensor([ids]))
    found = importance_of(file, ROWS)
    assert len(found) == 2 * 7
    for name, inputs in expected.items():
        assert np.allclose(found[name], torch.cat(inputs).square().mean(0).numpy(), rtol=1e-3), name


def test_a_narrow_type_needs_importance_and_follows_it(dense_file, tmp_path):
    _, file = dense_file
    with pytest.raises(ValueError, match="requires an imatrix"):
        quantize_file(file, tmp_path / "without.gguf", "iq2_xxs")
    importance = importance_of(file, ROWS)
    quantize_file(file, tmp_path / "with.gguf", "iq2_xxs", importance=importance)
    quantize_file(
        file, tmp_path / "flat.gguf", "iq2_xxs", importance={k: np.ones_like(v) for k, v in importance.items()}
    )
    names = open_gguf(tmp_path / "with.gguf").tensors
    assert {tensor.type_name for name, tensor in names.items() if "ffn_up" in name} == {"IQ2_XXS"}
    with LlamaCpp(tmp_path / "with.gguf") as one, LlamaCpp(tmp_path / "flat.gguf") as other:
        assert not np.array_equal(one.logits(ROWS[0]), other.logits(ROWS[0]))


def test_a_callback_that_fails_is_heard(dense_file, monkeypatch):
    monkeypatch.setattr("scripts.llama_cpp.importance.GGML_TYPES", {"f32": 99})
    with pytest.raises(AssertionError):
        importance_of(dense_file[1], ROWS)
