import itertools

import pytest
import torch
from torch import nn

from bitnet_train.errors import FormatError
from bitnet_train.formats.planes import pack_planes
from bitnet_train.model.bit_embedding import BitEmbedding
from bitnet_train.model.packed_embedding import PackedEmbedding
from bitnet_train.quant.scheme import GRANULARITIES, WeightScheme
from bitnet_train.quant.surrogate import Identity
from tests.fixtures.schemes import CODE_SETS, weight_scheme

WEIGHTS = [weight_scheme(name, grain, 25) for name, grain in itertools.product(CODE_SETS, GRANULARITIES)]
SIZES = [(1, 25), (7, 75), (33, 200)]


def bit_embedding(num_rows, width, weight):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(num_rows)
        return BitEmbedding.from_embedding(nn.Embedding(num_rows, width), weight, Identity()).eval()


def planes_and_scale(layer):
    codes, scale = layer.quantized()
    return pack_planes(codes, layer.weight_scheme.code_set), scale


def pack(layer):
    return PackedEmbedding.from_planes(*planes_and_scale(layer), layer.embedding_dim, layer.weight_scheme)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("size", SIZES)
def test_the_packed_table_is_the_evaluated_one_bit_for_bit(size, weight):
    layer = bit_embedding(*size, weight)
    packed = pack(layer)
    generator = torch.Generator().manual_seed(0)
    for shape in [(), (1,), (2, 3), (0,), (2, 60)]:
        ids = torch.randint(0, size[0], shape, generator=generator)
        assert torch.equal(packed(ids).view(torch.int32), layer(ids).view(torch.int32))  # signs of zeros too
    assert torch.equal(packed.codes(), layer.quantized()[0])


@pytest.mark.parametrize("name", CODE_SETS)
def test_it_holds_the_bytes_of_the_planes_and_no_float_table(name):
    layer = bit_embedding(33, 200, weight_scheme(name))
    packed, (planes, _) = pack(layer), planes_and_scale(layer)
    assert packed.words.nbytes == planes.nbytes
    assert {key: tuple(value.shape) for key, value in packed.state_dict().items()} == {
        "words": (planes.shape[0], 33, 1, 4),
        "w_scale": (33, 1),
    }
    assert not list(packed.parameters())


@pytest.mark.parametrize("unknown", [-1, 7])
def test_an_id_outside_the_table_is_an_error(unknown):
    with pytest.raises((IndexError, RuntimeError)):
        pack(bit_embedding(7, 75, WeightScheme()))(torch.tensor([unknown]))


def test_planes_and_scale_must_fit_together():
    layer = bit_embedding(7, 75, WeightScheme())
    planes, scale = planes_and_scale(layer)
    with pytest.raises(FormatError, match=r"binary weight with 200 inputs"):
        PackedEmbedding.from_planes(planes, scale, 200, WeightScheme())
    with pytest.raises(ValueError, match=r"`scale` has shape \[6, 1\].*\[7, 1\]"):
        PackedEmbedding.from_planes(planes, scale[:6], 75, WeightScheme())
    planes[0, 3, -1] = 255
    with pytest.raises(FormatError, match="padding bits"):
        PackedEmbedding.from_planes(planes, scale, 75, WeightScheme())
