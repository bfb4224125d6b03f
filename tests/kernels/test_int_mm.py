"""The product of a GPU's int8 units, which torch has on the CPU too: integers exact, the bits of the oracle."""

from __future__ import annotations

import pytest
import torch

from bitnet_train.errors import KernelError
from bitnet_train.kernels import int_mm, reference
from bitnet_train.model.bit_linear import BitLinear
from bitnet_train.model.quantized_linear import Quantizers, _on_int8_units, _quantized
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Clipped
from bitnet_train.quant.weight import absmean_scale, quantize


@pytest.mark.parametrize(("tokens", "outputs", "inputs", "group"), [(5, 7, 12, 4), (33, 16, 64, 64), (1, 3, 64, 16)])
@pytest.mark.parametrize("planes", [1, 2])
def test_the_int8_units_have_the_bits_of_the_oracle(
    tokens: int, outputs: int, inputs: int, group: int, planes: int
) -> None:
    generator = torch.Generator().manual_seed(tokens)
    scheme = WeightScheme("binary", "group", group, planes=planes)
    weight = torch.randn(outputs, inputs, generator=generator)
    scale = absmean_scale(weight, scheme)
    codes = quantize(weight, scale, scheme)
    x_codes, x_scale = quantize_activation(torch.randn(tokens, inputs, generator=generator), ActivationScheme("int8"))
    bias = torch.randn(outputs, generator=generator)
    exact = x_codes.long() @ codes.long().t()
    assert torch.equal(int_mm.int_product(x_codes, codes).long(), exact)
    for given in (None, bias):
        own = reference.linear(x_codes, x_scale, codes, scale, given, group, planes)
        assert torch.equal(int_mm.linear(x_codes, x_scale, codes, scale, given, group, planes), own)


def test_a_group_that_does_not_divide_the_inputs_is_refused_as_by_the_oracle() -> None:
    codes = torch.ones(3, 10, dtype=torch.int8)
    with pytest.raises(KernelError, match="does not divide"):
        int_mm.linear(codes, torch.ones(3, 1), codes, torch.ones(3, 2), None, 4)


@pytest.mark.parametrize("scheme", [WeightScheme(), WeightScheme("binary", "group", 16, learnable_scale=True)])
def test_a_layer_on_int8_units_has_the_bits_of_its_evaluation(scheme: WeightScheme) -> None:
    torch.manual_seed(0)
    activation = ActivationScheme("int8")
    layer = BitLinear.from_linear(torch.nn.Linear(64, 24), scheme, activation, Clipped()).train()
    x = torch.randn(20, 64)
    quantizers = Quantizers(scheme, activation, layer.surrogate)
    with torch.no_grad():
        tokens, scale = _quantized(x, activation, torch.float32), layer.rounded_scale()
        y = _on_int8_units(tokens, layer.weight, scale, layer.bias, quantizers)
    assert torch.equal(y, layer.eval()(x))
