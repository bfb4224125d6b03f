from __future__ import annotations

from bitnet_train.config.compose import compose
from bitnet_train.sensitivity.parts import Part
from bitnet_train.sensitivity.reference import Fidelity
from bitnet_train.sensitivity.scan import Result
from bitnet_train.sensitivity.suggest import override_word, suggest


def result(pattern, names, only, ternary):
    """A part of 800 weights in 100 bytes, 200 in ternary, 1600 in fp16."""
    measured = [Fidelity(kl, 0.5, 10.0) for kl in (only, ternary, 1.0)]
    return Result(Part("family", pattern, names), 800, 100, 200, *measured)


PARTS = [result("mlp.down_proj", ("a", "b"), 0.9, 0.3), result("mlp.up_proj", ("c",), 0.4, 0.1),
         result("layers.0.*", ("a", "c"), 0.8, 0.4), result("self_attn.q_proj", ("d",), 0.1, 0.2)]  # fmt: skip


def test_the_best_ratio_is_taken_first_and_no_layer_twice():
    chosen = suggest(PARTS, 300)
    assert [(choice.part.pattern, choice.becomes) for choice in chosen] == [
        ("mlp.down_proj", "ternary"),
        ("mlp.up_proj", "ternary"),
    ]
    assert sum(choice.extra_bytes for choice in chosen) == 200


def test_a_budget_is_kept_and_a_part_that_ternary_does_not_help_stays_float_at_most():
    assert suggest(PARTS, 99) == []
    assert [choice.part.pattern for choice in suggest(PARTS, 150)] == ["mlp.down_proj"]
    assert suggest(PARTS, 10_000)[-1].entry == {"pattern": "self_attn.q_proj", "keep": True}


def test_the_word_is_one_that_the_command_line_reads_as_the_entries():
    entries = [choice.entry for choice in suggest(PARTS, 10_000)] + [{"pattern": "layers.[0-3].*", "group_size": 64}]
    word = override_word(entries)
    assert (word[0], word[-1]) == ("'", "'")
    assert list(compose("quickstart", [word[1:-1]]).config.weight.overrides) == entries
