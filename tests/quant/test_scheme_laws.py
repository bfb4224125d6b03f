"""A scheme that is only named, as a new row of `WeightName` or `ActivationName` is at first, computes nothing at all.

It must not pass for the last of those that are known: every place that depends on codes refuses it by name.
"""

import numpy as np
import pytest
import torch

from bitnet_train.errors import BitnetTrainError
from bitnet_train.formats.ggml import GGML_TYPES, SCHEME_CODES, encode_planes
from bitnet_train.formats.planes import NUM_PLANES, codes_from_bits, pack_planes, plane_bits
from bitnet_train.model.start.fit_scale import fit_scale
from bitnet_train.quant.activation import fake_quantize_activation, quantize_activation
from bitnet_train.quant.scheme import CODES as EVERY_CODE
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import SURROGATES
from bitnet_train.quant.weight import absmean_scale, away_from_thresholds, float_codes, quantize
from bitnet_train.validation.check_integers import worst_case_codes
from tests.fixtures.schemes import weight_scheme

NEW = "quinary"
LATENT, HARDNESS = torch.linspace(-1, 1, 64).reshape(4, 16), torch.tensor(1.0)
SCALE, CODES = torch.full((4, 1), 0.5), torch.ones(4, 16, dtype=torch.int8)
PLANES = torch.zeros(1, 4, 32, dtype=torch.uint8)


def only_named(kind, key="name"):
    scheme = kind()
    object.__setattr__(scheme, key, NEW)
    return scheme


WEIGHT, ACTIVATION = only_named(WeightScheme), only_named(ActivationScheme)
PLACES = {
    "codes": lambda: quantize(LATENT, SCALE, WEIGHT),
    "float codes": lambda: float_codes(LATENT, SCALE, WEIGHT),
    "thresholds": lambda: away_from_thresholds(LATENT, SCALE, WEIGHT, 0.1),
    "fitted scales": lambda: fit_scale(LATENT, WEIGHT),
    **{
        f"value of {name}": lambda kind=kind: kind().value(LATENT, SCALE, WEIGHT, HARDNESS)
        for name, kind in SURROGATES.items()
    },
    **{
        f"slopes of {name}": lambda kind=kind: kind().slopes(LATENT, SCALE, WEIGHT, HARDNESS)
        for name, kind in SURROGATES.items()
    },
    "planes": lambda: pack_planes(CODES, NEW),
    "bits": lambda: plane_bits(PLANES, 256, NEW),
    "codes of bits": lambda: codes_from_bits(np.zeros((1, 4, 16), np.uint8), NEW),
    **{f"blocks of {name}": lambda name=name: encode_planes(PLANES, 256, NEW, SCALE, name) for name in GGML_TYPES},
    "shape of scales": lambda: only_named(WeightScheme, "granularity").scale_shape(4, 16),
    "inputs of a scale": lambda: only_named(WeightScheme, "granularity").inputs_per_scale(16),
    "tokens": lambda: quantize_activation(LATENT, ACTIVATION),
    "value of tokens": lambda: fake_quantize_activation(LATENT, ACTIVATION),
    "worst tokens": lambda: worst_case_codes(CODES, NEW, torch.Generator()),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_scheme_that_is_only_named_is_refused_by_name(place):
    with pytest.raises(BitnetTrainError, match=NEW):
        PLACES[place]()


def test_every_weight_scheme_has_planes_and_codes_that_agree_with_its_arithmetic():
    assert set(NUM_PLANES) == set(SCHEME_CODES) == set(EVERY_CODE)
    latent = torch.linspace(-1, 1, 256).reshape(1, -1)
    for name in EVERY_CODE:
        scheme = weight_scheme(name)
        assert scheme.code_set == name
        found = quantize(4 * latent, absmean_scale(latent, scheme), scheme).unique().tolist()
        assert tuple(found) == SCHEME_CODES[name] == EVERY_CODE[name]
        assert scheme.has_zero == (0 in found)
        assert NUM_PLANES[name] == scheme.num_planes
        assert scheme.num_magnitudes == len({abs(code) for code in found} - {0})
