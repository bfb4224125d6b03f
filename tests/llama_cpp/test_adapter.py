"""A LoRA outside the quantiser goes out as a file that llama.cpp adds to the exported base, with the same effect."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from bitnet_train.exporters.adapter import ADAPTER_NAME, write_adapter
from bitnet_train.exporters.gguf import MODEL_NAME
from bitnet_train.exporters.registry import export_as
from bitnet_train.model.bit_lora import attach
from bitnet_train.model.convert import convert
from bitnet_train.model.lora_layers import LoraOutside
from bitnet_train.model.settings import AdapterConfig, Selection
from bitnet_train.quant.scheme import WeightScheme
from scripts.llama_cpp.float_model import float_model
from scripts.llama_cpp.libllama import LlamaCpp, quantize_file

BINARY_ROW = WeightScheme(granularity="row")
IDS = list(range(3, 60))
STRENGTHS = {
    "alpha / r": AdapterConfig(kind="lora_outside", rank=6, alpha=9.0, rslora=False),
    "alpha / sqrt(r)": AdapterConfig(kind="lora_outside", rank=6, alpha=9.0, rslora=True),
    "switched off": AdapterConfig(kind="lora_outside", rank=6, alpha=0.0),
}


@pytest.fixture(scope="module")
def base(make_packed, tmp_path_factory) -> Path:
    """Return a folder of one exported base: `packed` is its source, `f32.gguf` the file with float activations."""
    folder = tmp_path_factory.mktemp("base")
    packed = make_packed(BINARY_ROW)
    (folder / "packed").symlink_to(packed)
    export_as("gguf", packed, folder / "out")
    quantize_file(folder / "out" / MODEL_NAME, folder / "f32.gguf", "f32", allow_requantize=True)
    return folder


def with_adapter(base: Path, config: AdapterConfig) -> PeftModel:
    """Return a 1-bit model on the weights of `base` with a trained-looking outside adapter."""
    model = float_model(base / "packed")
    convert(model, selection=Selection(roles=("attention", "mlp")), weight=BINARY_ROW)
    adapted = attach(model.eval(), config)
    assert isinstance(adapted, PeftModel)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in outside_layers(adapted).values():
            for factors in (layer.lora_A, layer.lora_B):
                weight = factors["default"].weight
                weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    return adapted


def outside_layers(model: PeftModel) -> dict[str, LoraOutside]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraOutside)}


def reference(base: Path, adapted: PeftModel, config: AdapterConfig) -> PreTrainedModel:
    """Return the dense base with PEFT's own LoRA over it, the factors copied: no 1-bit layer and no code of ours."""
    names = [name.removeprefix("base_model.model.") for name in outside_layers(adapted)]
    lora = LoraConfig(r=config.rank, lora_alpha=config.alpha, use_rslora=config.rslora, target_modules=names)
    dense = get_peft_model(float_model(base / "packed"), lora)
    layers = dict(dense.named_modules())
    with torch.no_grad():
        for name, layer in outside_layers(adapted).items():
            layers[name].lora_A["default"].weight.copy_(layer.lora_A["default"].weight)
            layers[name].lora_B["default"].weight.copy_(layer.lora_B["default"].weight)
    return dense.eval()


@torch.no_grad()
def logits_of(model: torch.nn.Module) -> torch.Tensor:
    return model(torch.tensor([IDS])).logits[0]


def llama_cpp_logits(file: Path, adapter: Path | None) -> torch.Tensor:
    with LlamaCpp(file) as model:
        model.set_adapter(adapter)
        return torch.from_numpy(model.logits(IDS))


@pytest.mark.slow
@pytest.mark.parametrize("strength", STRENGTHS)
def test_llama_cpp_adds_the_adapter_as_peft_does(base, tmp_path, strength):
    config = STRENGTHS[strength]
    adapted = with_adapter(base, config)
    facts = write_adapter(adapted, tmp_path / "out")
    assert facts["num_layers"] == len(outside_layers(adapted)) == 14
    expected = logits_of(reference(base, adapted, config))
    found = llama_cpp_logits(base / "f32.gguf", tmp_path / "out" / ADAPTER_NAME)
    largest = float(expected.abs().max())
    # Float32 sums in another order, through two layers and one more product.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * largest)
    unadapted = llama_cpp_logits(base / "f32.gguf", None)
    moved = float((found - unadapted).abs().max()) / largest
    assert moved == 0 if strength == "switched off" else moved > 0.05


def test_on_one_bit_weights_it_moves_the_logits_as_our_own_adapter_does(base, tmp_path):
    config = STRENGTHS["alpha / sqrt(r)"]
    adapted = with_adapter(base, config)
    write_adapter(adapted, tmp_path / "out")
    file = base / "out" / MODEL_NAME
    theirs = llama_cpp_logits(file, tmp_path / "out" / ADAPTER_NAME)
    moved = theirs - llama_cpp_logits(file, None)
    ours = logits_of(adapted)
    with adapted.disable_adapter():
        ours_moved = ours - logits_of(adapted)
    # Both round activations to 8 bits, each in its way: about a percent of an effect that is large.
    assert float((moved - ours_moved).norm() / ours_moved.norm()) < 0.1
    assert float(ours_moved.norm() / ours.norm()) > 0.05


def test_layers_of_unequal_strength_share_one_file(base, tmp_path):
    config = STRENGTHS["alpha / r"]
    adapted = with_adapter(base, config)
    for number, layer in enumerate(outside_layers(adapted).values()):
        layer.scaling["default"] *= 1 + number % 3
    write_adapter(adapted, tmp_path / "out")
    dense = reference(base, adapted, config)
    layers = dict(dense.named_modules())
    for name, layer in outside_layers(adapted).items():
        layers[name].scaling["default"] = layer.scaling["default"]
    found = llama_cpp_logits(base / "f32.gguf", tmp_path / "out" / ADAPTER_NAME)
    expected = logits_of(dense)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_llama_cpp_refuses_the_adapter_of_another_model(base, tmp_path, make_packed):
    adapted = with_adapter(base, STRENGTHS["alpha / r"])
    write_adapter(adapted, tmp_path / "adapter")
    export_as("gguf", make_packed(BINARY_ROW, num_hidden_layers=1), tmp_path / "other")
    with LlamaCpp(tmp_path / "other" / MODEL_NAME) as model, pytest.raises(ValueError, match="does not exist in base"):
        model.set_adapter(tmp_path / "adapter" / ADAPTER_NAME)
