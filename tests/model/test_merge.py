import itertools

import pytest
import torch

from bitnet_train.errors import ConversionError, ParityError
from bitnet_train.model.bit_embedding import BitEmbedding
from bitnet_train.model.bit_linear import BitLinear, bit_layers
from bitnet_train.model.bit_lora import attach, quantized_weights
from bitnet_train.model.lora_layers import LoraInside
from bitnet_train.model.merge import merge
from bitnet_train.model.patterns import ROLES
from bitnet_train.model.settings import AdapterConfig, Selection
from bitnet_train.quant.scheme import GRANULARITIES, WeightScheme
from tests.fixtures.families import CONFIGS, adapted, converted_model, logits, randomize_adapter
from tests.fixtures.schemes import CODE_SETS, weight_scheme

SCHEMES = [
    weight_scheme(name, grain, 16, learnable_scale=learnable)
    for name, grain, learnable in itertools.product(CODE_SETS, GRANULARITIES, (False, True))
]


def require_same_after_merge(model):
    before = {name: (codes.clone(), scale.clone()) for name, codes, scale in quantized_weights(model)}
    expected = logits(model)
    merged = merge(model)
    for name, layer in bit_layers(merged).items():
        codes, scale = layer.quantized()
        assert torch.equal(codes, before[name][0])
        assert torch.equal(scale, before[name][1])
    assert torch.equal(logits(merged), expected)
    return merged


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_merging_keeps_codes_scales_and_logits_bit_for_bit(scheme):
    merged = require_same_after_merge(randomize_adapter(adapted(weight=scheme)))
    assert not any("lora" in name for name in merged.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
def test_merging_gives_the_plain_model_back_for_every_architecture(family):
    plain = converted_model(family)
    merged = require_same_after_merge(randomize_adapter(adapted(family=family)))
    assert type(merged) is type(plain)
    assert list(merged.state_dict()) == list(plain.state_dict())
    assert list(bit_layers(merged)) == list(bit_layers(plain))


def test_merging_leaves_a_one_bit_embedding_as_it_was_trained():
    model = converted_model("smollm", WeightScheme(learnable_scale=True), selection=Selection(roles=ROLES))
    model = randomize_adapter(attach(model, AdapterConfig(rank=4, train_embeddings=True)))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(-1)
        model.get_input_embeddings().scale.mul_(1.5)
    merged = require_same_after_merge(model)
    assert isinstance(merged.get_input_embeddings(), BitEmbedding)


def test_merging_after_optimiser_steps_keeps_the_trained_function():
    model = adapted(weight=WeightScheme("ternary", "group", 16, learnable_scale=True))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    ids = torch.arange(24).reshape(2, 12)
    for _ in range(3):
        model.train()(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    require_same_after_merge(model)


def test_merge_refuses_an_outside_adapter_and_leaves_it_as_it_was():
    model = randomize_adapter(adapted("lora_outside"))
    expected = logits(model)
    with pytest.raises(ConversionError, match=r"`lora_outside` cannot be merged.*`adapter.kind=lora_inside`"):
        merge(model)
    with pytest.raises(ConversionError, match="lora_outside"):
        model.merge_and_unload()
    assert torch.equal(logits(model), expected)


def test_a_model_without_adapter_is_merged_already():
    model = attach(converted_model(), AdapterConfig(kind="none"))
    assert merge(model) is model


def test_pefts_own_merge_gives_the_same_weights():
    ours, theirs = (randomize_adapter(adapted()) for _ in range(2))
    expected = logits(ours)
    merged, unloaded = merge(ours), theirs.merge_and_unload()
    assert all(isinstance(layer, BitLinear) for layer in bit_layers(unloaded).values())
    assert torch.equal(logits(merged), expected)
    assert torch.equal(logits(unloaded), expected)


def test_a_latent_weight_that_cannot_hold_the_sum_is_reported_with_its_layer():
    model = randomize_adapter(adapted(weight=WeightScheme(granularity="group", group_size=16)))
    layer = model.base_model.model.model.layers[1].mlp.up_proj
    layer.bit_linear.weight.data = layer.bit_linear.weight.data.to(torch.float8_e4m3fn).to(torch.bfloat16)
    with pytest.raises(ParityError, match=r"merging changed \d+ of \d+ \w+ of model.layers.1.mlp.up_proj"):
        merge(model)


def test_a_non_finite_adapter_is_refused_before_anything_is_merged():
    model = randomize_adapter(adapted())
    with torch.no_grad():
        model.base_model.model.model.layers[1].mlp.up_proj.lora_B["default"].weight[0, 0] = float("nan")
    with pytest.raises(ConversionError, match=r"model.layers.1.mlp.up_proj has NaN or infinite"):
        merge(model)
    assert sum(isinstance(module, LoraInside) for module in model.modules()) == 14


def test_the_adapter_cannot_be_taken_out_after_the_merge():
    layer = randomize_adapter(adapted()).base_model.model.model.layers[0].mlp.up_proj
    layer.merge()
    with pytest.raises(ConversionError, match="cannot be taken out again"):
        layer.unmerge()
