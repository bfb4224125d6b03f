from __future__ import annotations

import torch
from torch import nn

from bitnet_train.importers.load import load_pretrained
from bitnet_train.quant.activation import quantize_activation
from bitnet_train.quant.scheme import ActivationScheme
from bitnet_train.train.losses.int8_teacher import FrozenInt8Linear, distance, in_int8

TEXT = "def read(path):\n    with open(path) as file:\n        return [line.strip() for line in file if line]\n"


def test_a_linear_is_the_product_of_both_sides_rounded() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(70, 30), torch.randn(2, 5, 70)
    codes, scale = quantize_activation(x.reshape(-1, 70), ActivationScheme("int8"))
    largest = linear.weight.detach().abs().amax(1, keepdim=True)
    weight = torch.round(linear.weight.detach() * (127 / largest)).double() * (largest / 127).double()
    expected = (codes.double() * scale.double()) @ weight.T + linear.bias.detach().double()
    y = FrozenInt8Linear(linear)(x)
    assert y.shape == (2, 5, 30)
    # integers are exact; four float32 roundings of values below 8, of which the scale of a weight is off by two more
    torch.testing.assert_close(y.double().reshape(-1, 30), expected, rtol=0, atol=8 * 6 * 2.0**-24)


def test_loud_inputs_cost_less_where_weights_share_the_burden() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 32), torch.randn(40, 64)
    x[:, 5] *= 300
    exact = linear(x).detach()
    plain, shared = ((FrozenInt8Linear(linear, largest)(x) - exact).abs().mean() for largest in (None, x.abs().amax(0)))
    assert shared < plain / 4


def test_a_linear_that_no_text_reaches_is_rounded_as_it_is() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 32), torch.randn(40, 64)
    assert bool(FrozenInt8Linear(linear, torch.zeros(64))(x).isfinite().all())


def test_a_model_in_int8_says_nearly_the_same_and_the_original_stays_as_it_is() -> None:
    loaded = load_pretrained("tiny")
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    ids = loaded.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    batch = {"input_ids": ids, "labels": ids}
    rounded = in_int8(loaded.model, batch)
    assert not [name for name, module in rounded.named_modules() if type(module) is nn.Linear]
    assert rounded.get_input_embeddings().weight is loaded.model.get_input_embeddings().weight
    assert not rounded(input_ids=ids).logits.requires_grad
    assert not any(module._forward_pre_hooks for module in loaded.model.modules())
    lost = distance(rounded, loaded.model, batch)
    assert 0 < lost < 0.05, "nats; a trained student of this model is off by 0.26"
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())
    assert distance(loaded.model, loaded.model, batch) == 0
    but_for_its_head = in_int8(loaded.model, batch, with_head=False)
    assert but_for_its_head.get_output_embeddings() is not loaded.model.get_output_embeddings()
    assert type(but_for_its_head.get_output_embeddings()) is nn.Linear
    assert 0 < distance(but_for_its_head, loaded.model, batch) < lost
