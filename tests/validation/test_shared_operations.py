"""A Hugging Face model that computes with the runtime's float operations has the runtime's bits."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bitnet_train.errors import KernelError
from bitnet_train.kernels.isa import available_isas, forced_isa
from bitnet_train.model.cached_step import cached_step
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.runtime.load import load
from bitnet_train.runtime.native.architecture import NotNative
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.validation.shared_operations import shared_operations

IDS = torch.randint(0, 256, (1, 640), generator=torch.Generator().manual_seed(5))
PIECES = (1, 9, 20, 1, 1, 250, 1, 70, 10)  # of a text; 250 and 70 cross the end of a page


def text_for(native):
    return IDS[:, : native.max_tokens - 8]


def pieces_of(text):
    sizes = [size for end, size in zip(torch.tensor(PIECES).cumsum(0), PIECES, strict=True) if end < text.shape[1]]
    return text.split([*sizes, text.shape[1] - sum(sizes)], dim=1)


@torch.no_grad()
def logits_in_pieces(model, text):
    past, logits = None, []
    for piece in pieces_of(text):
        output, past = cached_step(model, piece, past)
        logits.append(output.logits[0])
    return torch.cat(logits)


def native_logits(native, text):
    return torch.from_numpy(native.logits(text[0].tolist()))


@torch.no_grad()
def test_every_family_has_the_bits_of_the_native_runtime_at_once_and_in_pieces(family_folder):
    model, native = load(family_folder), NativeModel.load(family_folder, num_threads=2)
    text = text_for(native)
    expected = native_logits(native, text)
    with shared_operations(model):
        assert torch.equal(model(text, use_cache=False).logits[0], expected)
        assert torch.equal(logits_in_pieces(model, text), expected)


@pytest.mark.slow
def test_every_family_generates_what_the_native_runtime_writes(family_folder):
    model, native = load(family_folder), NativeModel.load(family_folder, num_threads=1)
    prompt = IDS[:, :19]
    with shared_operations(model):
        whole = model.generate(prompt, max_new_tokens=60, do_sample=False, eos_token_id=None)
    assert native.generate_ids(prompt[0].tolist(), 60, stop_ids=()) == whole[0, 19:].tolist()


@pytest.mark.slow
@torch.no_grad()
def test_the_bundled_model_has_the_bits_of_the_native_runtime(pretrained_folder):
    model, native = load(pretrained_folder), NativeModel.load(pretrained_folder, num_threads=1)
    text = IDS[:, :400]
    with shared_operations(model):
        assert torch.equal(logits_in_pieces(model, text), native_logits(native, text))


@pytest.mark.parametrize("isa", [isa for isa in available_isas() if isa != "reference"])
@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
@torch.no_grad()
def test_every_instruction_set_has_its_own_bits_in_both(make_folder, isa, family):
    folder = make_folder(family, roles=("mlp",), tokenizer=False)  # float products too
    with forced_isa(isa):
        model, native = load(folder), NativeModel.load(folder, num_threads=1)
        with shared_operations(model):
            assert torch.equal(model(IDS[:, :80]).logits[0], native_logits(native, IDS[:, :80]))


@torch.no_grad()
def test_texts_of_one_length_are_computed_together_as_alone(make_folder):
    model = load(make_folder())
    with shared_operations(model):
        together = model(IDS[:, :60].reshape(3, 20)).logits
        alone = [model(row[None]).logits[0] for row in IDS[0, :60].reshape(3, 20)]
    assert torch.equal(together, torch.stack(alone))


@torch.no_grad()
def test_the_model_is_itself_again_afterwards_even_after_an_error(make_folder):
    model = load(make_folder(weight=WeightScheme("ternary")))
    before, modules = model(IDS[:, :30]).logits, dict(model.named_modules())
    implementation = model.config._attn_implementation
    with shared_operations(model):
        assert not torch.equal(model(IDS[:, :30]).logits, before)
    with pytest.raises(KernelError, match="padding"), shared_operations(model):
        model(IDS[:, :4], attention_mask=torch.tensor([[0, 1, 1, 1]]))
    assert dict(model.named_modules()) == modules
    assert model.config._attn_implementation == implementation
    assert torch.equal(model(IDS[:, :30]).logits, before)


def test_a_model_in_training_mode_is_refused(make_folder):
    with (
        pytest.raises(KernelError, match=r"training mode.*Call `.eval\(\)` first"),
        shared_operations(load(make_folder()).train()),
    ):
        pass


def test_a_model_in_another_precision_is_refused(make_folder):
    model = load(make_folder()).bfloat16()
    with pytest.raises(KernelError, match=r"is torch.bfloat16 on cpu"), shared_operations(model):
        pass


def test_a_gradient_is_refused(make_folder):
    model = load(make_folder())
    model.get_input_embeddings().weight.requires_grad_(True)
    with shared_operations(model), pytest.raises(KernelError, match="`x` needs a gradient"):
        model(IDS[:, :4])


@torch.no_grad()
def test_padding_and_positions_that_jump_are_refused(make_folder):
    model, text = load(make_folder()), IDS[:, :4]
    padded = torch.tensor([[0, 1, 1, 1]])
    with shared_operations(model):
        with pytest.raises(KernelError, match="The batch has padding"):
            model(text, attention_mask=padded)
        with pytest.raises(KernelError, match="A mask is given"):
            model(text, attention_mask=torch.ones(1, 1, 4, 4).tril().log())
        with pytest.raises(KernelError, match="Several texts share a row"):
            model(text, position_ids=torch.tensor([[0, 1, 0, 1]]), use_cache=False)
        with pytest.raises(KernelError, match="position 7, sees position 0, but the keys begin at 7"):
            model(text[:, :1], position_ids=torch.tensor([[7]]))


def test_a_class_or_a_module_that_the_runtime_does_not_compute_is_refused(make_trained):
    with (
        pytest.raises(NotNative, match="GPT2LMHeadModel is not one of LlamaForCausalLM"),
        shared_operations(make_trained("gpt2")),
    ):
        pass
    with pytest.raises(NotNative, match=r"q_proj is a BitLinear, which the native"), shared_operations(make_trained()):
        pass
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    config.hidden_act = "gelu"
    with pytest.raises(NotNative, match=r"mlp\.act_fn is a GELU"), shared_operations(LlamaForCausalLM(config).eval()):
        pass
