import os

import pytest
import torch

from bitnet_train.errors import ConversionError
from bitnet_train.importers.load import load_pretrained
from bitnet_train.importers.outline import is_outline, outline, stand_in
from bitnet_train.model.convert import convert, plan_conversion
from bitnet_train.model.rounded_table import round_floats
from bitnet_train.model.settings import Selection
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.train.data.packing import keeps_documents_apart
from tests.fixtures.families import CONFIGS, tiny_model
from tests.fixtures.gguf_models import ARCHITECTURES, make, make_float

SCHEME = WeightScheme(learnable_scale=True)


def shapes(model):
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("family", CONFIGS)
def test_an_outline_has_the_layers_plan_and_converted_shapes_of_the_model(family, tmp_path, byte_tokenizer):
    tiny_model(family).save_pretrained(tmp_path)
    byte_tokenizer.save_pretrained(tmp_path)
    loaded, seen = load_pretrained(str(tmp_path)), outline(str(tmp_path))
    assert is_outline(seen.model)
    assert not is_outline(loaded.model)
    assert seen.description == loaded.description
    assert shapes(seen.model) == shapes(loaded.model)
    plans = [
        plan_conversion(each.model, Selection(), SCHEME, shapes_alone=is_outline(each.model)) for each in (loaded, seen)
    ]
    assert plans[0] == plans[1]
    for each, plan in zip((loaded, seen), plans, strict=True):
        convert(each.model, plan=plan)
        round_floats(each.model)
    assert shapes(seen.model) == shapes(loaded.model)


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
def test_a_stand_in_keeps_documents_apart_as_the_model_does(family, tmp_path, byte_tokenizer):
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    byte_tokenizer.save_pretrained(tmp_path)
    seen = stand_in(outline(str(tmp_path)).model)
    assert keeps_documents_apart(seen) == keeps_documents_apart(model)
    assert seen.get_input_embeddings().num_embeddings == model.get_input_embeddings().num_embeddings


def test_a_stand_in_leaves_the_random_state_alone():
    seen = outline("tiny").model
    torch.manual_seed(5)
    before = torch.get_rng_state()
    stand_in(seen)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_float_gguf_has_an_outline(architecture, tmp_path):
    path = str(make_float(ARCHITECTURES[architecture], architecture.partition(" ")[0]).write(tmp_path))
    assert shapes(outline(path).model) == shapes(load_pretrained(path).model)


def test_a_gguf_whose_weights_say_what_is_one_bit_has_no_outline(tmp_path):
    assert outline(str(make().write(tmp_path))) is None


def test_what_cannot_be_read_has_no_outline_so_that_loading_says_why(tmp_path, byte_tokenizer):
    tiny_model().save_pretrained(tmp_path)
    byte_tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert outline(str(tmp_path)) is None
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConversionError, match="PEFT adapter"):
        outline(str(tmp_path))
    with pytest.raises(ConversionError, match="there is no such directory"):
        outline(str(tmp_path / "nothing"))


@pytest.mark.slow
@pytest.mark.real_model
@pytest.mark.skipif(not os.environ.get("BITNET_TEST_SMOLLM2"), reason="needs BITNET_TEST_SMOLLM2=path of a GGUF")
def test_a_real_model_is_outlined_with_its_tied_head():
    seen = outline(os.environ["BITNET_TEST_SMOLLM2"]).model
    assert seen.num_parameters() == 134_515_008
    assert seen.get_output_embeddings().weight is seen.get_input_embeddings().weight
