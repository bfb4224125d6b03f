import pytest
import torch

from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_embedding import BitEmbedding
from bitnet_train.model.bit_linear import BitLinear, bit_layers
from bitnet_train.model.convert import convert, plan_conversion, plan_of_converted
from bitnet_train.model.settings import Selection
from bitnet_train.quant.scheme import WeightScheme
from tests.fixtures.families import (
    CONFIGS,
    LEAVES,
    MIXTURES,
    logits,
    mixture_model,
    tiny_model,
    token_ids,
    vision_model,
)

WITH_HEAD = Selection(roles=("attention", "mlp", "head"))
WITH_EMBEDDING = Selection(roles=("attention", "mlp", "embedding"))
EVERYTHING = Selection(roles=("attention", "mlp", "head", "embedding"))
PLAIN_TABLE = [family for family in CONFIGS if "gemma" not in family]


def snapshot(model):
    return {name: (id(module), type(module)) for name, module in model.named_modules()}


@pytest.mark.parametrize("family", CONFIGS)
def test_every_decoder_linear_of_every_architecture_is_converted(family):
    model = tiny_model(family)
    plan = convert(model)
    expected = 2 * sum(len(leaves) for leaves in LEAVES[family].values())
    assert len(plan.converted) == expected
    assert tuple(bit_layers(model)) == plan.converted
    assert bool(torch.isfinite(logits(model)).all())


@pytest.mark.parametrize("family", CONFIGS)
def test_a_converted_layer_holds_the_weights_it_replaced(family):
    before, model = tiny_model(family), tiny_model(family)
    convert(model, selection=WITH_HEAD)
    for name, layer in bit_layers(model).items():
        original = before.get_submodule(name)
        weight = original.weight.T if type(original).__name__ == "Conv1D" else original.weight
        assert torch.equal(layer.weight, weight)
        assert layer.weight.data_ptr() != weight.data_ptr()
        if original.bias is not None:
            assert torch.equal(layer.bias, original.bias)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_converted_model_trains_and_generates(family):
    model = tiny_model(family)
    convert(model, selection=WITH_HEAD, weight=WeightScheme(granularity="group", group_size=16))
    model.train()(input_ids=token_ids(), labels=token_ids()).loss.backward()
    assert all(layer.weight.grad is not None for layer in bit_layers(model).values())
    model.eval()
    assert model.generate(token_ids(1, 4), max_new_tokens=3, min_new_tokens=3, do_sample=False).shape == (1, 7)


@pytest.mark.parametrize("family", ["smollm", "gpt2", "gemma"])
def test_a_tied_head_is_untied_with_a_copy_and_the_plan_says_so(family):
    model = tiny_model(family)
    embedding = model.get_input_embeddings().weight
    before = embedding.detach().clone()
    plan = convert(model, selection=WITH_HEAD)
    head = model.get_output_embeddings()
    assert "The head shares its weight with the embedding" in plan.render()
    assert isinstance(head, BitLinear)
    assert model.get_input_embeddings().weight is embedding
    assert torch.equal(head.weight, before)
    assert head.weight is not embedding
    assert not model.config.tie_word_embeddings
    model.tie_weights()
    assert model.get_output_embeddings().weight is not embedding


@pytest.mark.slow
@pytest.mark.parametrize("family", PLAIN_TABLE)
@pytest.mark.parametrize("selection", [WITH_EMBEDDING, EVERYTHING], ids=["embedding", "embedding+head"])
def test_the_token_embedding_of_every_architecture_can_be_converted_and_trains(family, selection):
    before, model = tiny_model(family), tiny_model(family)
    plan = convert(model, selection=selection, weight=WeightScheme("ternary", "group", 16, learnable_scale=True))
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, BitEmbedding)
    assert torch.equal(embedding.weight, before.get_input_embeddings().weight)
    assert tuple(bit_layers(model)) == plan.converted
    model.train()(input_ids=token_ids(), labels=token_ids()).loss.backward()
    for layer in bit_layers(model).values():
        assert bool(layer.weight.grad.abs().sum() > 0)
        assert bool(layer.scale.grad.abs().sum() > 0)
    model.eval()
    assert model.generate(token_ids(1, 4), max_new_tokens=3, min_new_tokens=3, do_sample=False).shape == (1, 7)


@pytest.mark.parametrize(
    ("selection", "note"),
    [(WITH_EMBEDDING, "it keeps a float copy."), (EVERYTHING, "each becomes 1-bit with a copy of its own.")],
    ids=["embedding", "embedding+head"],
)
@pytest.mark.parametrize("family", ["smollm", "gpt2"])
def test_a_tied_embedding_is_untied_with_a_copy_and_the_plan_says_so(family, selection, note):
    model = tiny_model(family)
    shared = model.get_input_embeddings().weight
    plan = convert(model, selection=selection)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert plan.notes == (f"The head shares its weight with the embedding: {note}",)
    assert torch.equal(embedding.weight, head.weight)
    assert embedding.weight is not shared
    assert embedding.weight.data_ptr() != head.weight.data_ptr()
    assert (head.weight is shared) == (selection is WITH_EMBEDDING)
    assert not model.config.tie_word_embeddings
    model.tie_weights()
    assert model.get_output_embeddings().weight is head.weight is not embedding.weight


def test_position_tables_stay_float():
    model = tiny_model("gpt2")
    kept = {row.name: row.reason for row in convert(model, selection=EVERYTHING).rows if row.action == "keep"}
    assert kept == {"transformer.wpe": "only the token embedding can be 1-bit"}


def test_patterns_see_the_token_embedding():
    model = tiny_model()
    assert convert(model, selection=Selection(include=("embed_tokens",), roles=("embedding",))).converted == (
        "model.embed_tokens",
    )
    with pytest.raises(ConversionError, match=r"matched only layers of role embedding .*Add the role"):
        convert(tiny_model(), selection=Selection(include=("embed_tokens",)))
    without = Selection(exclude=("embed_tokens",), roles=EVERYTHING.roles)
    assert "model.embed_tokens" not in convert(tiny_model(), selection=without).converted


@pytest.mark.parametrize("family", ["gemma", "gemma2"])
def test_an_embedding_that_scales_its_rows_is_refused_by_name_and_class(family):
    model = tiny_model(family)
    before = snapshot(model)
    with pytest.raises(ConversionError, match=r"^model.embed_tokens: Gemma\w*ScaledWordEmbedding cannot become"):
        convert(model, selection=WITH_EMBEDDING)
    assert snapshot(model) == before


def test_an_embedding_shared_with_more_than_the_head_is_refused():
    model = tiny_model("smollm")
    model.model.layers[0].mlp.up_proj.weight = model.model.embed_tokens.weight
    with pytest.raises(ConversionError, match=r"embed_tokens shares its weight with model.layers.0.mlp.up_proj"):
        convert(model, selection=Selection(roles=("embedding",)))


def test_a_tied_head_that_is_not_selected_stays_tied():
    model = tiny_model("smollm")
    plan = convert(model)
    assert not plan.notes
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.tie_word_embeddings


def test_the_default_keeps_head_and_embedding():
    model = tiny_model()
    kept = {row.name: row.reason for row in convert(model).rows if row.action == "keep"}
    assert set(kept) == {"model.embed_tokens", "lm_head"}
    assert kept["lm_head"] == "role head is not selected"


def test_the_plan_prints_one_line_per_family_of_layers():
    text = plan_conversion(tiny_model(), Selection(exclude=("layers.1.mlp.*",)), WeightScheme()).render()
    line = next(line for line in text.splitlines() if "q_proj" in line)
    assert line.split() == ["model.layers.*.self_attn.q_proj", "64", "x", "64", "binary", "per", "row", "2"]
    assert "layers.1.mlp.*'" in " ".join(text.split())
    assert "11 of 16 layers become 1-bit, 43,008 weights." in text


def test_the_plan_of_a_usual_model_fits_eighty_columns():
    schemes = WeightScheme(granularity="group", group_size=16)
    text = plan_conversion(tiny_model(), Selection(exclude=("layers.1.mlp.*",)), schemes).render()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "Float: model.embed_tokens: role embedding is not selected." in text


def test_planning_changes_nothing():
    model = tiny_model("smollm")
    before = snapshot(model)
    plan_conversion(model, WITH_HEAD, WeightScheme())
    assert snapshot(model) == before


def broken(model, value):
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 4] = value
    return model


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (lambda: tiny_model(), {"selection": Selection(include=("gate",))}, r"`model.include\[0\]='gate'`"),
        (lambda: tiny_model(), {"selection": Selection(exclude=("*_proj",))}, r"nothing to convert in LlamaForC"),
        (lambda: tiny_model(), {"weight": WeightScheme(granularity="group", group_size=64)}, r"down_proj: `weight.gr"),
        (lambda: broken(tiny_model(), float("nan")), {}, r"layers.1.mlp.down_proj has 1 NaN or infinite weights"),
        (lambda: broken(tiny_model(), float("-inf")), {}, r"layers.1.mlp.down_proj has 1 NaN or infinite weights"),
        (lambda: broken(tiny_model(), 1e9), {}, r"layers.1.mlp.down_proj: a weight scale of 1.0.*e\+07 cannot be"),
    ],
)
def test_what_cannot_be_converted_is_refused_before_anything_changes(model, options, message):
    model = model()
    before = snapshot(model)
    with pytest.raises(ConversionError, match=message):
        convert(model, **options)
    assert snapshot(model) == before


def test_a_broken_weight_can_be_left_out():
    model = broken(tiny_model(), float("nan"))
    assert len(convert(model, selection=Selection(exclude=("layers.1.mlp.down_proj",))).converted) == 13


def test_a_converted_model_is_not_converted_again():
    model = tiny_model()
    convert(model)
    with pytest.raises(ConversionError, match="holds 1-bit layers already"):
        convert(model)


def test_two_layers_that_share_a_weight_are_refused():
    model = tiny_model()
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(
        ConversionError, match=r"layers.0.mlp.up_proj shares its weight with model.layers.1.mlp.up_proj"
    ):
        convert(model)


def test_a_model_without_data_is_refused():
    with torch.device("meta"):
        model = type(tiny_model())(CONFIGS["llama"]())
    with pytest.raises(ConversionError, match="has no data"):
        convert(model)


def test_a_given_plan_is_carried_out():
    model = tiny_model()
    plan = plan_conversion(model, Selection(include=("q_proj",)), WeightScheme())
    assert convert(model, plan=plan) is plan
    assert tuple(bit_layers(model)) == plan.converted
    assert len(plan.converted) == 2


def test_the_plan_of_a_model_with_pictures_leaves_everything_else_than_text_as_it_is():
    model = vision_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "vision" in name}
    plan = convert(model)
    assert len(plan.converted) == 14
    assert all(name.startswith("model.language_model.layers.") for name in plan.converted)
    assert "not of the language model" in plan.render()
    assert before
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_that_stay_float_are_named_with_their_share_of_the_weights(family):
    model = mixture_model(family)
    experts = sum(parameter.numel() for name, parameter in model.named_parameters() if ".experts." in name)
    share = experts / sum(parameter.numel() for parameter in model.parameters())
    plan = convert(model)
    assert plan.notes == (
        f"4 stacked tensors stay float, {share:.0%} of all weights: model.layers.*.mlp.experts.gate_up_proj, "
        "model.layers.*.mlp.experts.down_proj.",
    )
    assert plan.notes[0] in " ".join(plan.render().split())
    assert not any("gate" in name.split(".")[-1] and "proj" not in name for name in plan.converted)
    assert plan_of_converted(model).notes == plan.notes
