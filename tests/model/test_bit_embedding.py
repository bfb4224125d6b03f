import itertools

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaTextScaledWordEmbedding

from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_embedding import BitEmbedding
from bitnet_train.model.bit_linear import set_hardness
from bitnet_train.quant.scheme import GRANULARITIES, WeightScheme
from bitnet_train.quant.surrogate import SURROGATES, Identity, Tanh
from bitnet_train.quant.weight import dequantize
from tests.fixtures.schemes import CODE_SETS, weight_scheme

WEIGHTS = [
    weight_scheme(name, grain, 16, learnable_scale=learnable)
    for name, grain, learnable in itertools.product(CODE_SETS, GRANULARITIES, (False, True))
]
NUM_ROWS, WIDTH = 40, 48
FEW = torch.tensor([[3, 7, 3], [0, 39, 12]])
"""Fewer tokens than rows; one comes twice."""
MANY = torch.randint(0, NUM_ROWS, (4, 25), generator=torch.Generator().manual_seed(5))
"""More tokens than rows."""


def table(padding_idx=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Embedding(NUM_ROWS, WIDTH, padding_idx=padding_idx)


def make(weight=None, surrogate=None, padding_idx=None):
    return BitEmbedding.from_embedding(table(padding_idx), weight or WeightScheme(), surrogate or Identity())


def upstream(ids):
    return torch.randn(*ids.shape, WIDTH, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_evaluation_looks_up_scale_times_codes(weight):
    layer = make(weight).eval()
    whole = dequantize(*layer.quantized())
    for ids in (FEW, MANY, FEW.int(), torch.tensor(7), torch.zeros(2, 0, dtype=torch.int64)):
        assert torch.equal(layer(ids), whole[ids.long()])


@pytest.mark.slow
@pytest.mark.parametrize("ids", [FEW, MANY, FEW[:1, :1], FEW[:, :0]], ids=["few", "many", "one", "none"])
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_hard_training_computes_the_very_values_of_evaluation(weight, name, ids):
    layer = make(weight, SURROGATES[name]())
    assert torch.equal(layer.train()(ids), layer.eval()(ids))


@pytest.mark.slow
@pytest.mark.parametrize("padding_idx", [None, 3])
@pytest.mark.parametrize("ids", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_gradients_are_those_of_a_look_up_in_the_whole_effective_weight(weight, name, ids, padding_idx):
    layer = make(weight, SURROGATES[name](), padding_idx).train()
    set_hardness([layer], 0.75)
    layer(ids).backward(upstream(ids))
    actual = [parameter.grad for parameter in layer.parameters()]
    layer.zero_grad()
    whole = layer.effective_weight()
    kept = upstream(ids) * (ids != padding_idx).unsqueeze(-1) if padding_idx is not None else upstream(ids)
    whole.backward(torch.zeros_like(whole).index_add(0, ids.flatten(), kept.flatten(0, 1)))
    for gradient, parameter in zip(actual, layer.parameters(), strict=True):
        assert bool(parameter.grad.abs().sum() > 0)
        # Each is a sum of the same terms in another order; a scale sums up to all of them.
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-5)


def test_rows_that_were_not_looked_up_and_the_padding_row_get_no_gradient():
    for padding_idx in (None, 3):
        layer = make(padding_idx=padding_idx).train()
        layer(FEW).backward(upstream(FEW))
        moved = set(torch.nonzero(layer.weight.grad.abs().sum(1)).flatten().tolist())
        assert moved == {0, 3, 7, 12, 39} - {padding_idx}


def test_a_training_step_quantises_only_the_rows_it_needs():
    sizes = []

    class Counting(Identity):
        def value(self, w_NK, scale, scheme, hardness):
            sizes.append(w_NK.shape[0])
            return super().value(w_NK, scale, scheme, hardness)

    layer = make(surrogate=Counting()).train()
    layer(FEW)
    layer(MANY)
    assert sizes == [FEW.numel(), NUM_ROWS]


def test_a_learnable_scale_starts_at_the_fixed_one_and_is_used():
    fixed, learnable = make().eval(), make(WeightScheme(learnable_scale=True)).eval()
    assert torch.equal(fixed(FEW), learnable(FEW))
    with torch.no_grad():
        learnable.scale[7].mul_(2)
    factor = torch.where(FEW == 7, 2.0, 1.0).unsqueeze(-1)
    assert torch.equal(learnable(FEW), fixed(FEW) * factor)
    assert torch.equal(learnable.train()(FEW), fixed(FEW) * factor)


def test_a_soft_weight_only_shows_in_training_and_autocast_changes_nothing():
    layer = make(surrogate=Tanh())
    hard = layer.eval()(FEW)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.train()(FEW), hard)
    set_hardness(nn.ModuleList([layer]), 0.5)
    assert torch.equal(layer.eval()(FEW), hard)
    assert not torch.allclose(layer.train()(FEW), hard, atol=1e-3)


@pytest.mark.parametrize("mode", [False, True])
@pytest.mark.parametrize("unknown", [-1, NUM_ROWS])
def test_an_id_outside_the_table_is_an_error(unknown, mode):
    with pytest.raises(IndexError):
        make().train(mode)(torch.tensor([0, unknown]))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: nn.Linear(4, 4), r"^Linear cannot become a BitEmbedding"),
        (lambda: GemmaTextScaledWordEmbedding(4, 4, 0, 8.0), r"^GemmaTextScaledWordEmbedding .*Leave `embedding` out"),
        (lambda: nn.Embedding(4, 4, max_norm=1.0), r"max_norm=1.0"),
        (lambda: nn.Embedding(4, 4, sparse=True), r"sparse=True"),
        (lambda: nn.Embedding(4, 4, scale_grad_by_freq=True), r"scale_grad_by_freq=True"),
    ],
)
def test_what_does_more_than_look_up_is_refused_by_its_class(module, message):
    with pytest.raises(ConversionError, match=message):
        BitEmbedding.from_embedding(module(), WeightScheme(), Identity())
