"""The adapter file, without llama.cpp: what is in it, and what is refused. `tests/llama_cpp` has the real reader."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from peft import PeftModel

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.exporters.adapter import ADAPTER_NAME, write_adapter
from bitnet_train.gguf.architecture import architecture_of
from bitnet_train.gguf.file import GgufFile, open_gguf
from bitnet_train.model.bit_lora import attach
from bitnet_train.model.lora_layers import LoraOutside
from bitnet_train.model.settings import AdapterConfig

OUTSIDE = AdapterConfig(kind="lora_outside", rank=4, alpha=8.0, rslora=True)


@pytest.fixture
def adapted(make_trained) -> PeftModel:
    return adapt(make_trained(), OUTSIDE)


def adapt(model, config: AdapterConfig) -> PeftModel:
    adapted = attach(model, config)
    assert isinstance(adapted, PeftModel)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn_like(parameter))
    return adapted


def values(file: GgufFile, name: str) -> torch.Tensor:
    return torch.from_numpy(file.rows(name).view("<f4").copy()).reshape(file.tensors[name].shape)


def test_the_file_holds_every_factor_in_llama_cpps_rows(adapted, tmp_path):
    facts = write_adapter(adapted, tmp_path / "out")
    file = open_gguf(tmp_path / "out" / ADAPTER_NAME)
    assert file.metadata["general.type"] == "adapter"
    assert file.metadata["general.architecture"] == "llama"
    assert file.metadata["adapter.type"] == "lora"
    config = adapted.get_base_model().config.to_dict()
    layers = {n: m for n, m in adapted.named_modules() if isinstance(m, LoraOutside)}
    assert facts["num_layers"] == len(layers) == len(file.tensors) / 2
    architecture = architecture_of(config)
    for name, layer in layers.items():
        module = name.removeprefix("base_model.model.")
        target = architecture.to_gguf(f"{module}.weight")
        b = architecture.rows_to_gguf(module, layer.lora_B["default"].weight, config)
        assert torch.equal(values(file, f"{target}.lora_a"), layer.lora_A["default"].weight)
        assert torch.equal(values(file, f"{target}.lora_b"), b)


@pytest.mark.parametrize(("rslora", "alpha"), [(True, 8.0 * math.sqrt(4)), (False, 8.0)])
def test_alpha_over_rank_in_the_file_is_the_scaling_that_was_trained(make_trained, tmp_path, rslora, alpha):
    config = AdapterConfig(kind="lora_outside", rank=4, alpha=8.0, rslora=rslora)
    facts = write_adapter(adapt(make_trained(), config), tmp_path / "out")
    assert facts["alpha"] == alpha
    stored = open_gguf(tmp_path / "out" / ADAPTER_NAME).metadata["adapter.lora.alpha"]
    assert stored == np.float32(alpha)


def test_an_inside_adapter_is_refused_with_the_way_to_go(make_trained, tmp_path):
    adapted = adapt(make_trained(), AdapterConfig(kind="lora_inside", rank=4))
    with pytest.raises(ConversionError, match=r"merge it, and export the merged model with `export\.format=gguf`"):
        write_adapter(adapted, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_factor_that_is_not_finite_is_refused_by_the_name_of_its_layer(adapted, tmp_path):
    name, layer = next((n, m) for n, m in adapted.named_modules() if isinstance(m, LoraOutside))
    with torch.no_grad():
        layer.lora_B["default"].weight[0, 0] = torch.nan
    with pytest.raises(ConversionError, match=name.removeprefix("base_model.model.")):
        write_adapter(adapted, tmp_path / "out")


def test_an_adapter_that_is_not_there_is_refused(adapted, tmp_path):
    with pytest.raises(ConversionError, match="no layer with an adapter named 'other'"):
        write_adapter(adapted, tmp_path / "out", adapter="other")


def test_only_an_earlier_adapter_is_replaced_and_only_when_asked(adapted, tmp_path):
    write_adapter(adapted, tmp_path / "out")
    with pytest.raises(FormatError, match="not empty"):
        write_adapter(adapted, tmp_path / "out")
    write_adapter(adapted, tmp_path / "out", force=True)
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(FormatError, match=r"mine\.txt"):
        write_adapter(adapted, tmp_path / "out", force=True)
