import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file

from bitnet_train.errors import ConfigError, ConversionError
from bitnet_train.model.bit_embedding import BitEmbedding
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.bit_lora import attach, quantized_weights, trainable_report
from bitnet_train.model.lora_layers import LoraInside
from bitnet_train.model.patterns import ROLES
from bitnet_train.model.settings import AdapterConfig, Selection
from bitnet_train.quant.scheme import WeightScheme
from tests.fixtures.families import CONFIGS, adapted, converted_model, logits, randomize_adapter, tiny_model, token_ids

LEARNABLE = WeightScheme(learnable_scale=True)


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_peft_still_has_the_hook_for_custom_layers():
    assert callable(getattr(LoraConfig, "_register_custom_module", None)), "peft dropped the hook that bit_lora needs"
    inside = [type(module) for module in adapted().modules() if isinstance(module, LoraInside)]
    assert len(inside) == 14


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("kind", ["lora_inside", "lora_outside", "none"])
def test_layer_names_stay_clean_and_a_fresh_adapter_changes_nothing(family, kind):
    model = converted_model(family)
    names, expected = list(bit_layers(model)), logits(model)
    model = attach(model, AdapterConfig(kind=kind, rank=4))
    assert list(bit_layers(model)) == names
    assert [name for name, _, _ in quantized_weights(model)] == names
    assert torch.equal(logits(model), expected)


def test_an_inside_adapter_moves_codes_and_an_outside_one_does_not():
    for kind, moves in (("lora_inside", True), ("lora_outside", False)):
        model = adapted(kind)
        before = {name: codes for name, codes, _ in quantized_weights(model)}
        expected = logits(model)
        randomize_adapter(model)
        after = {name: codes for name, codes, _ in quantized_weights(model)}
        assert all(torch.equal(before[name], after[name]) != moves for name in before)
        assert not torch.equal(logits(model), expected)


def test_the_inside_layer_is_the_bit_linear_of_the_adapted_weight():
    model = randomize_adapter(adapted())
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    twin = copy.deepcopy(layer.bit_linear)
    with torch.no_grad():
        twin.weight.copy_(layer.bit_linear.weight + 8.0 / 4**0.5 * (b @ a))
    assert torch.equal(layer.eval()(x), twin.eval()(x))
    torch.testing.assert_close(layer.train()(x), twin.train()(x))


def test_the_outside_layer_adds_a_float_side_path():
    model = randomize_adapter(adapted("lora_outside"))
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), layer.bit_linear(x) + 8.0 / 4**0.5 * (x @ a.T @ b.T))


def test_rank_stabilised_scaling_is_alpha_over_root_rank():
    for rslora, expected in ((True, 8.0 / 2), (False, 8.0 / 4)):
        layer = adapted(rslora=rslora).base_model.model.model.layers[0].mlp.up_proj
        assert layer.scaling["default"] == expected


def test_the_inside_delta_is_float32_even_under_autocast():
    layer = randomize_adapter(adapted()).base_model.model.model.layers[0].mlp.up_proj
    expected = layer.latent()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.latent(), expected)


@pytest.mark.parametrize(
    ("kind", "weight", "expected"),
    [
        ("lora_inside", LEARNABLE, {"lora_A.default.weight", "lora_B.default.weight", "scale", "bias", "norm"}),
        ("lora_inside", None, {"lora_A.default.weight", "lora_B.default.weight", "bias", "norm"}),
        ("lora_outside", LEARNABLE, {"lora_A.default.weight", "lora_B.default.weight"}),
        ("scales_only", LEARNABLE, {"scale", "bias", "norm"}),
        ("none", LEARNABLE, {"weight", "scale", "bias", "norm"}),
    ],
)
def test_each_kind_trains_what_it_says_and_all_of_it_gets_a_gradient(kind, weight, expected):
    model = randomize_adapter(adapted(kind, "qwen2", weight))
    kinds = set()
    for name in trainable(model):
        module, _, leaf = name.rpartition(".")
        if "lora_" in name:
            leaf = ".".join(name.split(".")[-3:])
        kinds.add("norm" if "norm" in module.rpartition(".")[2] else leaf)
    assert kinds == expected
    model.train()(input_ids=token_ids(), labels=token_ids()).loss.backward()
    for name, parameter in model.named_parameters():
        has_gradient = parameter.grad is not None
        assert has_gradient == parameter.requires_grad, name


def test_embeddings_train_only_when_asked_and_norms_and_biases_can_be_frozen():
    assert not any("embed" in name or "lm_head" in name for name in trainable(adapted("none")))
    with_embeddings = trainable(adapted("none", "smollm", train_embeddings=True))
    assert "model.embed_tokens.weight" in with_embeddings
    lean = trainable(adapted("none", "qwen2", train_norms=False, train_bias=False))
    assert {name.rpartition(".")[2] for name in lean} == {"weight"}
    assert not any("norm" in name for name in lean)


@pytest.mark.parametrize(
    ("kind", "train_embeddings", "expected"),
    [
        ("lora_inside", False, {"scale"}),
        ("lora_inside", True, {"weight", "scale"}),
        ("lora_outside", False, set()),
        ("scales_only", False, {"scale"}),
        ("none", False, {"weight", "scale"}),
        ("none", True, {"weight", "scale"}),
    ],
)
def test_a_one_bit_embedding_gets_no_adapter_and_trains_what_its_kind_says(kind, train_embeddings, expected):
    model = converted_model("smollm", LEARNABLE, selection=Selection(roles=ROLES))
    names = list(bit_layers(model))
    model = attach(model, AdapterConfig(kind=kind, rank=4, train_embeddings=train_embeddings))
    assert list(bit_layers(model)) == names == [name for name, _, _ in quantized_weights(model)]
    (embedding,) = [module for module in model.modules() if isinstance(module, BitEmbedding)]
    assert trainable(embedding) == expected
    model.train()(input_ids=token_ids(), labels=token_ids()).loss.backward()
    assert {name for name, parameter in embedding.named_parameters() if parameter.grad is not None} == expected


def test_a_low_rank_needs_a_linear():
    model = converted_model(selection=Selection(roles=("embedding",)))
    with pytest.raises(ConversionError, match=r"`adapter.kind=lora_inside` adapts linears.*`adapter.kind=none`"):
        attach(model, AdapterConfig())


def test_the_report_counts_trainable_and_all_parameters_once():
    model = adapted("none", "smollm", train_norms=False)
    latents = sum(layer.weight.numel() for layer in bit_layers(model).values())
    assert trainable_report(model) == (latents, latents + 97 * 64 + 5 * 64)


def test_an_inside_adapter_can_be_switched_off():
    model = converted_model()
    expected = logits(model)
    model = randomize_adapter(attach(model, AdapterConfig(rank=4)))
    assert isinstance(model, PeftModel)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)
    assert not torch.equal(logits(model), expected)


def test_evaluation_sees_a_step_of_the_adapter():
    model = randomize_adapter(adapted())
    before = logits(model)
    randomize_adapter(model, seed=1)
    assert not torch.equal(logits(model), before)


def test_an_adapter_file_gives_the_same_model_again(tmp_path):
    model = randomize_adapter(adapted())
    model.save_pretrained(tmp_path)
    other = adapted()
    assert not torch.equal(logits(other), logits(model))
    set_peft_model_state_dict(other, load_file(tmp_path / "adapter_model.safetensors"))
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: AdapterConfig(kind="dora"), ConfigError, r"`adapter.kind=dora` is not a known .*: lora_inside"),
        (lambda: AdapterConfig(rank=0), ConfigError, r"`adapter.rank=0`"),
        (lambda: AdapterConfig(kind="lora_outside", dropout=1.0), ConfigError, r"`adapter.dropout=1.0`"),
        (lambda: AdapterConfig(dropout=0.1), ConversionError, r"`adapter.dropout=0.1` cannot act with .*lora_inside"),
        (lambda: attach(tiny_model(), AdapterConfig()), ConversionError, r"has no BitLinear to adapt"),
        (lambda: attach(adapted(), AdapterConfig()), ConversionError, r"has an adapter already"),
        (lambda: adapted("scales_only"), ConversionError, r"Set `weight.learnable_scale=true`"),
    ],
)
def test_a_wrong_adapter_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


GROUPED = WeightScheme(granularity="group", group_size=32, learnable_scale=True)


@pytest.mark.parametrize(
    "settings", [{"latent_shrink": 0.01}, {"equal_latents": True}, {"latent_shrink": 0.01, "equal_latents": True}]
)
def test_moved_latents_keep_codes_scales_and_logits(settings: dict) -> None:
    model, plain = converted_model("llama", GROUPED), converted_model("llama", GROUPED)
    adapted = attach(model, AdapterConfig(rank=4, **settings))
    for (name, codes, scale), (_, other, other_scale) in zip(
        quantized_weights(adapted), quantized_weights(plain), strict=True
    ):
        assert torch.equal(codes, other), name
        assert torch.equal(scale, other_scale), name
    assert torch.equal(logits(adapted), logits(plain))


def test_shrunk_latents_let_the_same_adapter_flip_more_signs() -> None:
    flipped = []
    for shrink in (1.0, 0.01):
        model = attach(converted_model("llama", GROUPED), AdapterConfig(rank=4, latent_shrink=shrink))
        before = [codes.clone() for _, codes, _ in quantized_weights(model)]
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=1e-4)
        flipped.append(sum(int((a != b).sum()) for a, (_, b, _) in zip(before, quantized_weights(model), strict=True)))
    assert flipped[1] > 20 * flipped[0]


def test_equal_latents_all_lie_one_scale_from_zero() -> None:
    model = converted_model("llama", GROUPED)
    attach(model, AdapterConfig(rank=4, equal_latents=True, latent_shrink=0.5))
    for layer in bit_layers(model).values():
        expected = 0.5 * layer.rounded_scale().repeat_interleave(32, dim=1)
        assert torch.equal(layer.weight.abs(), expected)


@pytest.mark.parametrize("weight", [WeightScheme(), WeightScheme("ternary", learnable_scale=True)])
def test_latents_that_decide_a_scale_or_a_zero_are_not_moved(weight: WeightScheme) -> None:
    with pytest.raises(ConversionError, match=r"`adapter\.latent_shrink`.*weight\.learnable_scale=true`"):
        attach(converted_model("llama", weight), AdapterConfig(rank=4, latent_shrink=0.1))


@pytest.mark.parametrize(
    "settings", [{"latent_shrink": 0.0}, {"latent_shrink": 2.0}, {"latent_shrink": 0.5, "kind": "none"}]
)
def test_a_shrink_without_room_for_it_is_refused(settings: dict) -> None:
    with pytest.raises(ConfigError, match=r"`adapter\.latent_shrink="):
        AdapterConfig(**settings)
