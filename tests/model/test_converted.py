import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.convert import convert
from bitnet_train.model.converted import ConversionRecord, load_converted, read_record, save_converted
from bitnet_train.model.settings import Selection
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import SURROGATES, Tanh
from tests.fixtures.families import CONFIGS, adapted, converted_model, logits, tiny_model


def converted(family="llama", roles=("attention", "mlp")):
    """A converted model whose scales are not the initial ones, and its record."""
    model, selection = tiny_model(family), Selection(roles=roles)
    weight = WeightScheme("ternary", "group", 16, learnable_scale=True)
    plan = convert(model, selection=selection, weight=weight, activation=ActivationScheme("sign"), surrogate=Tanh())
    with torch.no_grad():
        for layer in bit_layers(model).values():
            layer.scale.mul_(1.25)
    record = ConversionRecord(plan.converted, weight, ActivationScheme("sign"), Tanh(), selection)
    return model, record


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("roles", [("attention", "mlp"), ("mlp", "head")])
def test_a_saved_model_comes_back_bit_for_bit(family, roles, tmp_path):
    model, record = converted(family, roles)
    save_converted(model, record, tmp_path / "merged")
    loaded, tokenizer, loaded_record = load_converted(tmp_path / "merged")
    assert loaded_record == record
    assert tokenizer is None
    state, loaded_state = model.state_dict(), loaded.state_dict()
    assert state.keys() == loaded_state.keys()
    assert all(torch.equal(state[name], loaded_state[name]) for name in state)
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("roles", [("embedding",), ("attention", "mlp", "head", "embedding")], ids="+".join)
@pytest.mark.parametrize("family", ["llama", "smollm", "gpt2"])
def test_a_saved_one_bit_embedding_comes_back_bit_for_bit(family, roles, tmp_path):
    model, record = converted(family, roles)
    save_converted(model, record, tmp_path / "merged")
    loaded, _, loaded_record = load_converted(tmp_path / "merged")
    assert loaded_record == record
    assert type(loaded.get_input_embeddings()) is type(model.get_input_embeddings())
    assert torch.equal(logits(loaded), logits(model))


def test_a_tied_embedding_is_stored_once_and_tied_again(tmp_path):
    model, record = converted("smollm")
    save_converted(model, record, tmp_path / "merged")
    loaded, _, _ = load_converted(tmp_path / "merged")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    stored = sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "merged" / "model.safetensors").stat().st_size < 4 * stored + 20_000


def test_the_tokenizer_travels_along(tmp_path, byte_tokenizer):
    model, record = converted()
    save_converted(model, record, tmp_path / "merged", byte_tokenizer)
    _, tokenizer, _ = load_converted(tmp_path / "merged")
    assert tokenizer is not None
    assert tokenizer("1-bit").input_ids == byte_tokenizer("1-bit").input_ids


@pytest.mark.parametrize("name", SURROGATES)
def test_a_record_survives_json(name):
    record = ConversionRecord(("a.b", "c"), surrogate=SURROGATES[name](), selection=Selection(exclude=("x",)))
    assert ConversionRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_an_adapter_must_be_merged_before_saving(tmp_path):
    model = adapted()
    record = ConversionRecord(tuple(bit_layers(model)))
    with pytest.raises(ConversionError, match="Merge an adapter first"):
        save_converted(model, record, tmp_path / "merged")
    assert not any(tmp_path.iterdir())


def test_the_record_must_be_of_this_model(tmp_path):
    model, record = converted()
    with pytest.raises(ConversionError, match=r"1 layers differ, such as model.layers.1.mlp.down_proj"):
        save_converted(model, ConversionRecord(record.layers[:-1]), tmp_path / "merged")


def test_a_folder_with_files_is_not_overwritten_and_an_empty_one_is_used(tmp_path):
    model, record = converted()
    save_converted(model, record, tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ConversionError, match="exists and is not empty"):
        save_converted(model, record, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert before == ["config.json", "conversion.json", "generation_config.json", "model.safetensors"]


def damage(folder, how):
    record, weights = folder / "conversion.json", folder / "model.safetensors"
    content = json.loads(record.read_text())
    if how == "missing record":
        record.unlink()
    elif how == "truncated record":
        record.write_text(record.read_text()[:40])
    elif how == "newer schema":
        record.write_text(json.dumps({**content, "schema": 5}))
    elif how == "no layers":
        record.write_text(json.dumps({key: value for key, value in content.items() if key != "layers"}))
    elif how == "other scheme":
        record.write_text(json.dumps({**content, "weight": {**content["weight"], "group_size": 32}}))
    elif how == "fewer layers":
        record.write_text(json.dumps({**content, "layers": content["layers"][:-1]}))
    elif how == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing record", "is not a converted model"),
        ("truncated record", "is not a converted model"),
        ("newer schema", "schema 5; this version reads schemas 1, 2, 3, 4"),
        ("no layers", "is damaged: 'layers'"),
        ("other scheme", "does not fit the model"),
        ("fewer layers", "which the model described beside it has not"),
        ("truncated weights", "does not fit the model"),
    ],
)
def test_a_damaged_folder_is_refused(how, message, tmp_path):
    model, record = converted()
    save_converted(model, record, tmp_path / "merged")
    damage(tmp_path / "merged", how)
    with pytest.raises(FormatError, match=message):
        load_converted(tmp_path / "merged")


@pytest.mark.parametrize(("part", "value"), [("weight", {"name": "quaternary"}), ("surrogate", {"name": "quaternary"})])
def test_a_record_with_an_unknown_scheme_is_refused(part, value):
    content = {**ConversionRecord(("a",)).to_dict(), part: value}
    with pytest.raises(FormatError, match=r"is damaged: .*quaternary"):
        ConversionRecord.from_dict(content)


def test_reading_the_record_needs_no_weights(tmp_path):
    model, record = converted()
    save_converted(model, record, tmp_path / "merged")
    (tmp_path / "merged" / "model.safetensors").unlink()
    assert read_record(tmp_path / "merged") == record


def test_a_fixed_scale_model_has_no_scale_tensors(tmp_path):
    model = converted_model()
    save_converted(model, ConversionRecord(tuple(bit_layers(model))), tmp_path / "merged")
    loaded, _, _ = load_converted(tmp_path / "merged")
    assert not any(name.endswith(".scale") for name in loaded.state_dict())
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("tied", [True, False])
def test_a_mapped_model_is_the_loaded_one(tmp_path, tied):
    model, record = converted("smollm" if tied else "llama")
    save_converted(model, record, tmp_path / "merged")
    mapped, _, same_record = load_converted(tmp_path / "merged", mapped=True)
    assert same_record == record
    loaded, _, _ = load_converted(tmp_path / "merged")
    expected = dict(loaded.named_parameters(remove_duplicate=False))
    found = dict(mapped.named_parameters(remove_duplicate=False))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (mapped.lm_head.weight is mapped.model.embed_tokens.weight) == tied


def test_weights_in_several_files_are_read_and_none_outside_the_folder(tmp_path):
    model, record = converted("llama")
    save_converted(model, record, tmp_path / "merged")
    tensors = load_file(tmp_path / "merged" / "model.safetensors")
    places = {name: f"part-{number % 2}.safetensors" for number, name in enumerate(tensors)}
    for part in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == part}, tmp_path / "merged" / part)
    (tmp_path / "merged" / "model.safetensors").unlink()
    index = tmp_path / "merged" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    mapped, _, _ = load_converted(tmp_path / "merged", mapped=True)
    assert all(torch.equal(parameter, tensors[name]) for name, parameter in mapped.named_parameters())
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "../part.safetensors")}))
    with pytest.raises(FormatError, match=r"\.\./part"):
        load_converted(tmp_path / "merged", mapped=True)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "part-0.safetensors")}))
    with pytest.raises(FormatError, match="no values for"):
        load_converted(tmp_path / "merged", mapped=True)
