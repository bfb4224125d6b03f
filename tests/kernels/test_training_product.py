"""The packed forward of a training step: the bits of evaluation, taken only where it is known to be faster."""

import itertools

import pytest
import torch

from bitnet_train.kernels import reference
from bitnet_train.kernels.isa import available_isas, forced_isa
from bitnet_train.kernels.ops import ACTIVATIONS
from bitnet_train.kernels.training_product import MIN_TOKENS, is_worth_packing, signed_product
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, GRANULARITIES, ActivationScheme, WeightScheme
from bitnet_train.quant.weight import absmean_scale, quantize

FAST = [isa for isa in available_isas() if isa in ("avx2", "avx512")]
SCHEMES = [WeightScheme("binary", grain, 32) for grain in GRANULARITIES]
INT8 = ActivationScheme("int8")


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def latent_with_zeros_of_both_signs(*shape):
    latent = 0.05 * random(*shape)
    latent[0, :2] = torch.tensor([0.0, -0.0])
    return latent


@pytest.mark.parametrize("isa", FAST)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("scheme", SCHEMES, ids=GRANULARITIES)
@pytest.mark.parametrize(("num_outputs", "num_inputs", "is_half"), [(40, 96, True), (7, 224, False), (65, 32, True)])
def test_the_product_has_the_bits_of_evaluation(isa, activation, scheme, num_outputs, num_inputs, is_half):
    x, latent = random(33, num_inputs, seed=1), latent_with_zeros_of_both_signs(num_outputs, num_inputs)
    scale = absmean_scale(latent, scheme) * (1 if is_half else 1.0001)
    for bias, rows in itertools.product((None, random(num_outputs, seed=2)), (x, x[::2])):
        codes = quantize_activation(rows, ActivationScheme(activation))
        group = scheme.inputs_per_scale(num_inputs)
        expected = reference.linear(*codes, quantize(latent, scale, scheme), scale, bias, group)
        with forced_isa(isa):
            assert torch.equal(signed_product(rows, latent, scale, bias, ActivationScheme(activation)), expected)


@pytest.mark.skipif(not FAST, reason="no instruction set on which packing is worth it")
def test_packing_is_worth_it_only_for_many_float32_tokens_of_a_binary_weight():
    many, binary = torch.zeros(MIN_TOKENS, 64), WeightScheme()
    with forced_isa(FAST[0]):
        assert is_worth_packing(many, torch.float32, binary, INT8)
        assert not is_worth_packing(many[1:], torch.float32, binary, INT8)
        assert not is_worth_packing(many, torch.bfloat16, binary, INT8)
        assert not is_worth_packing(many.bfloat16(), torch.float32, binary, INT8)
        assert not is_worth_packing(many, torch.float32, WeightScheme("ternary"), INT8)
        assert not is_worth_packing(many.to("meta"), torch.float32, binary, INT8)
        for name in set(ACTIVATION_SCHEMES) - set(ACTIVATIONS):
            assert not is_worth_packing(many, torch.float32, binary, ActivationScheme(name))


@pytest.mark.parametrize("isa", [isa for isa in available_isas() if isa not in FAST])
def test_other_instruction_sets_multiply_floats(isa):
    with forced_isa(isa):
        assert not is_worth_packing(torch.zeros(MIN_TOKENS, 64), torch.float32, WeightScheme(), INT8)
