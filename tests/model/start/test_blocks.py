"""Running a decoder block by block gives what running it whole gives, for every architecture."""

import pytest
import torch
from torch import nn

from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_linear import BitLinear
from bitnet_train.model.start.blocks import (
    block_calls,
    decoder_blocks,
    embedded,
    run_block,
    shared_inputs,
    training_forward,
)
from tests.fixtures.families import CONFIGS, LEAVES, converted_model, tiny_model, token_ids, vision_model


@torch.no_grad()
def by_blocks(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """The input of the last block, every block run by hand."""
    _, blocks = decoder_blocks(model)
    hidden = embedded(model, ids)
    for block, call in zip(blocks[:-1], block_calls(model, ids.shape[1])[:-1], strict=True):
        hidden = run_block(block, hidden, call)
    return hidden


@pytest.mark.parametrize("family", CONFIGS)
def test_blocks_by_hand_give_the_hidden_states_of_the_model(family: str) -> None:
    model, ids = tiny_model(family), token_ids(rows=3)
    with torch.no_grad():
        whole = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
    last = len(decoder_blocks(model)[1]) - 1
    assert torch.equal(by_blocks(model, ids), whole[last])


def test_the_blocks_are_those_of_the_language_model_however_large_the_tower_beside_it_is() -> None:
    model = vision_model(vision_width=512)
    assert decoder_blocks(model)[0] == "model.language_model.layers"


@pytest.mark.parametrize("family", CONFIGS)
def test_padding_on_the_right_changes_no_real_token(family: str) -> None:
    model, ids = tiny_model(family), token_ids(rows=2, tokens=12)
    padded = torch.where(torch.arange(12) < 7, ids, 0)
    whole = by_blocks(model, ids)
    assert torch.equal(by_blocks(model, padded)[:, :7], whole[:, :7])


@pytest.mark.parametrize("family", CONFIGS)
def test_overhearing_leaves_the_model_as_it_was(family: str) -> None:
    model, ids = tiny_model(family), token_ids()
    with torch.no_grad():
        before = model(input_ids=ids).logits
        block_calls(model, 12)
        embedded(model, ids)
        assert torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.parametrize("family", CONFIGS)
def test_layers_are_grouped_by_the_tensor_they_read_in_call_order(family: str) -> None:
    model = converted_model(family)
    _, blocks = decoder_blocks(model)
    names = [name for name, module in blocks[0].named_modules() if isinstance(module, BitLinear)]
    call = block_calls(model, 12)[0]
    with training_forward(blocks[0]):
        groups = shared_inputs(blocks[0], names, embedded(model, token_ids(rows=1)), call)
    assert sorted(name for group in groups for name in group) == sorted(names)
    leaves = [[name.rpartition(".")[2] for name in group] for group in groups]
    if LEAVES[family]["mlp"][0] == "gate_proj":
        assert leaves == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]


def test_the_training_forward_is_lent_to_1_bit_layers_only_and_given_back() -> None:
    model = converted_model("gpt2")
    block = decoder_blocks(model)[1][0]
    before = [module.training for module in block.modules()]
    with training_forward(block):
        assert {module.training for module in block.modules() if isinstance(module, BitLinear)} == {True}
        assert {module.training for module in block.modules() if isinstance(module, nn.Dropout)} == {False}
    assert [module.training for module in block.modules()] == before


def test_a_model_without_blocks_is_refused_with_the_way_out() -> None:
    class Flat(nn.Module):
        pass

    with pytest.raises(ConversionError, match=r"Flat has no list of decoder blocks.*`blockwise\.enabled=false`"):
        decoder_blocks(Flat())
