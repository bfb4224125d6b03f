from __future__ import annotations

from bitnet_train.train.data.special_tokens import bos_token, lead_token, pad_token
from tests.fixtures.data_examples import make_tokenizer


def test_a_document_begins_with_bos_else_eos_else_nothing() -> None:
    tokenizer = make_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    assert lead_token(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert (bos_token(make_tokenizer(bos=False)), lead_token(make_tokenizer(bos=False))) == (None, 0)
    bare = make_tokenizer(bos=False)
    bare.eos_token = None
    assert lead_token(bare) is None


def test_padding_is_pad_else_eos_else_zero() -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token, tokenizer.eos_token = "<|im_start|>", "<|im_end|>"
    assert pad_token(tokenizer) == 1
    tokenizer.pad_token = None
    assert pad_token(tokenizer) == 2
    tokenizer.eos_token = None
    assert pad_token(tokenizer) == 0


def test_padding_that_the_model_cannot_look_up_is_passed_over() -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token, tokenizer.eos_token = "<|im_end|>", "<|im_start|>"
    assert [pad_token(tokenizer, vocabulary) for vocabulary in (3, 2, 1)] == [2, 1, 0]
