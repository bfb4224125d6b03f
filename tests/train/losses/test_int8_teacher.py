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


def test_a_model_in_int8_says_nearly_the_same_and_the_original_stays_as_it_is() -> None:
    loaded = load_pretrained("tiny")
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    rounded = in_int8(loaded.model)
    assert not [name for name, module in rounded.named_modules() if type(module) is nn.Linear]
    assert rounded.get_input_embeddings().weight is loaded.model.get_input_embeddings().weight
    ids = loaded.tokenizer(TEXT, return_tensors="pt")["input_ids"]
    assert not rounded(input_ids=ids).logits.requires_grad
    lost = distance(rounded, loaded.model, {"input_ids": ids, "labels": ids})
    assert 0 < lost < 0.05, "nats; a trained student of this model is off by 0.26"
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())
    assert distance(loaded.model, loaded.model, {"input_ids": ids, "labels": ids}) == 0
