from __future__ import annotations

from bitnet_train.model.patterns import matches
from bitnet_train.sensitivity.parts import parts_of

LEAVES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj")
LLAMA = (*(f"model.layers.{block}.{leaf}" for block in range(11) for leaf in LEAVES), "lm_head")


def test_families_and_blocks_have_patterns_that_fit_exactly_their_layers():
    parts = parts_of(("model.embed_tokens", *LLAMA))
    assert [part.pattern for part in parts if part.kind == "family"] == [
        "model.embed_tokens", "self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj", "lm_head"
    ]  # fmt: skip
    assert [part.pattern for part in parts if part.kind == "block"] == [f"layers.{block}.*" for block in range(11)]
    for part in parts:
        assert tuple(name for name in LLAMA if matches(name, part.pattern)) == tuple(
            name for name in part.names if name in LLAMA
        )


def test_leaves_of_one_name_in_different_places_are_different_families():
    names = [f"transformer.h.{block}.{place}.c_proj" for block in range(2) for place in ("attn", "mlp")]
    assert [part.pattern for part in parts_of(names) if part.kind == "family"] == ["attn.c_proj", "mlp.c_proj"]


def test_single_layers_come_when_asked_for_and_none_is_tried_twice():
    assert {part.kind for part in parts_of(LLAMA)} == {"family", "block"}
    parts = parts_of(LLAMA, layers=True)
    assert len({part.names for part in parts}) == len(parts)
    assert sum(len(part.names) == 1 for part in parts) == len(LLAMA)
