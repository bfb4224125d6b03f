"""A scale per input: the start from |W|, the function, its gradients, and the ways out that are closed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bitnet_train.__main__ import main
from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_linear import BitLinear
from bitnet_train.model.bit_lora import attach
from bitnet_train.model.input_scale import (
    START_MAGNITUDE,
    InputScaledBitLinear,
    add_input_scales,
    rank_one,
)
from bitnet_train.model.merge import merge
from bitnet_train.model.settings import AdapterConfig
from bitnet_train.model.training_only import train_own_parameters
from bitnet_train.packed.writer import export_packed
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Identity
from tests.fixtures.families import converted_model

ROWS = WeightScheme("binary", "row", learnable_scale=True, scale_dtype="float32")
NUM_OUTPUTS, NUM_INPUTS = 20, 48


def layer(activation: str = "none", seed: int = 0) -> tuple[InputScaledBitLinear, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    linear = nn.Linear(NUM_INPUTS, NUM_OUTPUTS)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator))
    binary = BitLinear.from_linear(linear, ROWS, ActivationScheme(activation), Identity())
    return InputScaledBitLinear.from_bit_linear(binary), linear.weight.detach()


def test_rank_one_is_the_leading_singular_pair_with_inputs_of_mean_one() -> None:
    _, weight = layer()
    rows, inputs = rank_one(weight.abs())
    u, s, v = torch.linalg.svd(weight.abs().double())
    torch.testing.assert_close(torch.outer(rows, inputs).double(), s[0] * torch.outer(u[:, 0], v[0]))
    assert float(inputs.mean()) == pytest.approx(1)
    assert float(torch.cat([rows, inputs]).min()) >= 0


def test_rank_one_of_zeros_is_zero_and_finite() -> None:
    rows, inputs = rank_one(torch.zeros(3, 5))
    assert torch.outer(rows, inputs).abs().max() == 0
    assert torch.isfinite(inputs).all()


@pytest.mark.parametrize("activation", ["none", "int8"])
@pytest.mark.parametrize("training", [True, False])
def test_the_layer_multiplies_by_sign_row_scale_and_input_scale(activation: str, training: bool) -> None:
    made, weight = layer(activation)
    x = torch.randn(7, NUM_INPUTS, generator=torch.Generator().manual_seed(1))
    effective = torch.where(weight >= 0, 1.0, -1.0) * torch.outer(*rank_one(weight.abs()))
    expected = x @ effective.t() + made.bias
    # an int8 code is off by at most half a step of max|x g| / 127
    step = float((x * made.input_scale.detach()).abs().max()) / 254 * float(made.scale.detach().max()) * NUM_INPUTS
    allowed = 1e-4 if activation == "none" else step
    assert float((made.train(training)(x) - expected).abs().max()) <= allowed


def test_latents_start_as_signs_of_one_magnitude() -> None:
    made, weight = layer()
    assert torch.equal(made.weight.detach(), START_MAGNITUDE * weight.sign())


def test_every_part_gets_the_gradient_of_the_product() -> None:
    made, weight = layer()
    x = torch.randn(5, NUM_INPUTS, generator=torch.Generator().manual_seed(2))
    made(x).square().sum().backward()
    sign, h, g = weight.sign(), made.scale.detach().requires_grad_(), made.input_scale.detach().requires_grad_()
    (h.t() * ((x * g) @ sign.t()) + made.bias.detach()).square().sum().backward()
    torch.testing.assert_close(made.input_scale.grad, g.grad, rtol=1e-5, atol=1e-4)  # sums of 100 terms of size 10
    torch.testing.assert_close(made.scale.grad, h.grad / weight.numel() ** 0.5)


@pytest.mark.parametrize("kind", ["none", "scales_only", "lora_inside"])
def test_scales_per_input_train_with_every_adapter_inside(kind: str) -> None:
    model = with_input_scales()
    attached = attach(model, AdapterConfig(kind=kind, rank=2))
    assert not any(p.requires_grad for name, p in attached.named_parameters() if "input_scale" in name)
    train_own_parameters(attached)
    found = [p.requires_grad for name, p in attached.named_parameters() if "input_scale" in name]
    assert found
    assert all(found)


@pytest.mark.parametrize(
    "scheme",
    [
        WeightScheme("ternary", "row", learnable_scale=True),
        WeightScheme("binary", "row"),
        WeightScheme("binary", "group", 16, learnable_scale=True),
    ],
)
def test_other_schemes_are_refused_before_a_layer_changes(scheme: WeightScheme) -> None:
    model = converted_model("llama", weight=scheme)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ConversionError, match=r"`weight\.input_scale=true` needs binary codes of one plane and learnable row"
    ):
        add_input_scales(model)
    assert before.keys() == model.state_dict().keys()


def with_input_scales() -> nn.Module:
    model = converted_model("llama", weight=ROWS)
    add_input_scales(model)
    return model


@pytest.mark.parametrize("way", [merge, lambda model: export_packed(model, None, "nowhere")])
def test_merging_and_packing_refuse_it_and_say_what_to_train_instead(way) -> None:
    with pytest.raises(ConversionError, match=r"no packed format holds it.*`weight\.input_scale=false`"):
        way(with_input_scales())


@pytest.mark.slow
def test_the_whole_way_is_refused_before_it_starts(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "baselines/onebit", f"run.dir={tmp_path / 'run'}"]) == 2
    assert "cannot go the whole way" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_scheme_that_cannot_have_it_is_refused_with_the_keys_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quickstart", "weight.input_scale=true", "--dry-run"]) == 2
    assert "`weight=binary_row weight.learnable_scale=true weight.planes=1`" in capsys.readouterr().err
