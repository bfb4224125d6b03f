"""Chat templates of published models, which the llama.cpp sources carry (MIT) and `scripts/build_llama_cpp` keeps.

Their special tokens are read from the template, as the tokenizers that belong to them are not at hand. A template that
is not named below must be followed; one that is must be refused for that reason.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from bitnet_train.errors import DataError
from bitnet_train.train.data.chat import Rendered, render, segments, tokenise
from bitnet_train.train.data.chat_template import ChatTemplate
from bitnet_train.train.data.chat_turn import NO_END
from bitnet_train.train.data.examples import Conversation, RowReader
from bitnet_train.train.data.row_shape import FieldNames
from tests.fixtures.data_examples import make_tokenizer

FOLDER = Path(os.environ.get("BITNET_TEST_LLAMA_CPP", "none")) / "templates"
TEMPLATES = {path.stem: path for path in sorted(FOLDER.glob("*.jinja"))}
SPECIAL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|<\|[a-z_]+>|<[a-z_]+\|>|<end_of_\w+>|<sep>|<seed:eos>|</assistant>"
    r"|\[e~\[|</s>|<SPECIAL_\d+>"
)

pytestmark = [
    pytest.mark.toolchain,
    pytest.mark.skipif(not TEMPLATES, reason="no templates; export BITNET_TEST_LLAMA_CPP=$(scripts/build_llama_cpp)"),
]

OPEN = r"generation prompt ends in .*, but turn \d is not written so(.|\n)*"
REASONED = OPEN + r"give the turn's reasoning (as `reasoning_content`|in its content, beginning with '<think>')"
NEEDS_TOOLS = r"The row gives no `tools`, which this template reads"
NO_CALLS = r"has `tool_calls` and no text, and the chat template does not\s+write its calls"
PLAIN_REFUSED = {
    "Apriel-1.6-15b-Thinker-fixed": REASONED,
    "Cohere2MoE": REASONED,
    "MiniMax-M2": REASONED,
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": REASONED,
    "llama-cpp-deepseek-r1": REASONED,
    "CohereForAI-c4ai-command-r-plus-tool_use": NEEDS_TOOLS,
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": NEEDS_TOOLS,
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": NEEDS_TOOLS,
    "fireworks-ai-llama-3-firefunction-v2": r"`data\.chat_template_variables` can give it: datetime, functions",
}
READS_REASONING = {"Apriel-1.6-15b-Thinker-fixed", "Cohere2MoE", "MiniMax-M2"}
CALLS_REFUSED = {
    **{name: reason for name, reason in PLAIN_REFUSED.items() if reason != NEEDS_TOOLS},
    "NVIDIA-Nemotron-Nano-v2": REASONED,
    "Apertus-8B-Instruct": OPEN,  # an answer to a tool goes on in the turn of the call, but is asked for in a new one
    "Bielik-11B-v3.0-Instruct": OPEN,  # the end of a tool's turn is written only before a prompt
    "CohereForAI-c4ai-command-r-plus-tool_use": OPEN,  # a reminder of the tools stands before a prompt only
    "Kimi-K2-Instruct": r"refused the turns .* 'append'",  # it changes a list, which the sandbox forbids
    "Kimi-K2-Thinking": r"refused the turns .* 'append'",
    "llama-cpp-deepseek-r1": r"refused the turns .* not JSON serializable",
    "google-gemma-2-2b-it": r"refused the turns .* System role not supported",
    **dict.fromkeys(
        [
            "HuggingFaceTB-SmolLM3-3B",
            "LFM2-8B-A1B",
            "LFM2.5-Instruct",
            "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
            "ibm-granite-granite-3.3-2B-Instruct",
            "llama-cpp-rwkv-world",
            "microsoft-Phi-3.5-mini-instruct",
        ],
        NO_CALLS,
    ),
}
SWITCH_ON = r"The turn has reasoning: switch that on by `data\.chat_template_variables`"
REASONING_REFUSED = {
    **{name: reason for name, reason in PLAIN_REFUSED.items() if name not in READS_REASONING},
    "poolside-Laguna-XS-2.1": SWITCH_ON,
    "poolside-Laguna-XS.2": SWITCH_ON,
    "tencent-Hy3": SWITCH_ON,
}
SWITCHED_ON: dict[str, dict[str, Any]] = {
    "Reka-Edge": {"enable_thinking": True},
    "deepseek-ai-DeepSeek-V3.2": {"thinking": True},
    "deepseek-ai-DeepSeek-V4": {"thinking": True},
    "deepseek-ai-DeepSeek-V4-Flash-0731": {"enable_thinking": True},
    "poolside-Laguna-XS-2.1": {"enable_thinking": True},
    "poolside-Laguna-XS.2": {"enable_thinking": True},
    "tencent-Hy3": {"reasoning_effort": "high"},
}
CLOSED_BY_THE_NEXT = {"Apertus-8B-Instruct", "GLM-4.6", "GLM-4.7-Flash", "tencent-Hy3"}
NEVER_CLOSED = {"llama-cpp-rwkv-world"}

ANSWERS = ("The first, naïve 🙂 answer.", "And the second.")
PLAIN = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": ANSWERS[0]},
    {"role": "user", "content": "Two?"},
    {"role": "assistant", "content": ANSWERS[1]},
]
CALL = {"id": "call00001", "type": "function", "function": {"name": "get_rain", "arguments": '{"city": "Oslo"}'}}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "description": "c"}}, "required": ["city"]}
WITH_CALLS = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "name": "get_rain", "tool_call_id": "call00001", "content": "a little"},
        {"role": "assistant", "content": "It rains."},
    ],
    "tools": [{"name": "get_rain", "description": "Rain in a city", "parameters": PARAMETERS}],
}


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    template = TEMPLATES[name].read_text(encoding="utf-8")
    tokenizer = make_tokenizer(template)
    special = {*SPECIAL.findall(template), "<｜hy_eos:opensource｜>"}  # Hy3 puts its tokens together
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(special)})
    return tokenizer


def read(row: dict[str, Any]) -> Conversation:
    (example,) = RowReader("chat", FieldNames()).examples([("row", row)])
    assert isinstance(example, Conversation)
    return example


def check(name: str, row: dict[str, Any], parts: list[list[str]]) -> tuple[list[Rendered], Counter[str]]:
    """Follow the template; every trained turn stands behind its prompt, holds its parts, and decodes to its span."""
    template, example = ChatTemplate(tokenizer_of(name)), read(row)
    samples = render(example, template)
    turns = [i for i, message in enumerate(example.messages) if message.trained]
    spans = [(sample, span) for sample in samples for span in sample.trained]
    assert len(spans) == len(turns)
    for (sample, (first, last)), i, expected in zip(spans, turns, parts, strict=True):
        asked = template.text(example.messages[:i], example.tools, "row", ask=True)
        assert sample.text[:first] == asked
        assert all(part in sample.text[first:last] for part in expected), sample.text[first:last]
    for sample in samples:
        tokens = tokenise(sample, template.tokenizer)
        shown = [text for text, trained in segments(tokens.ids, tokens.trained, template.tokenizer) if trained]
        wanted = [sample.text[first:last] for first, last in sample.trained]
        assert [text.strip() for text in shown] == [text.strip() for text in wanted]
    return samples, template.notes


def ends_with_special_token(name: str, sample: Rendered) -> bool:
    special = ChatTemplate(tokenizer_of(name)).special
    return all(sample.text[first:last].endswith(special) for first, last in sample.trained)


REASONED_CHAT = read({"messages": [PLAIN[0], {**PLAIN[1], "reasoning_content": "Because of that."}]})


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_plain_chat_is_followed_to_the_end_of_every_turn_or_refused_for_its_reason(name: str) -> None:
    row = {"messages": PLAIN}
    if name in PLAIN_REFUSED:
        with pytest.raises(DataError, match=PLAIN_REFUSED[name]):
            check(name, row, [])
        return
    samples, notes = check(name, row, [[answer] for answer in ANSWERS])
    assert all(ends_with_special_token(name, sample) for sample in samples) == (name not in NEVER_CLOSED)
    assert (notes[NO_END] > 0) == (name in NEVER_CLOSED)
    assert any("closes, which comes only with the next" in note for note in notes) == (name in CLOSED_BY_THE_NEXT)
    assert {sample.text.count("One?") for sample in samples} == {1}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_with_calls_is_followed_or_refused_for_its_reason(name: str) -> None:
    if name in CALLS_REFUSED:
        with pytest.raises(DataError, match=CALLS_REFUSED[name]):
            check(name, WITH_CALLS, [])
        return
    samples, notes = check(name, WITH_CALLS, [["get_rain", "city", "Oslo"], ["It rains."]])
    assert all(ends_with_special_token(name, sample) for sample in samples)
    assert not any("leaves out" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "variables", "ending"),
    [
        ("Qwen-QwQ-32B", {"enable_thinking": True}, None),
        ("Qwen-Qwen3-0.6B", {"enable_thinking": False}, "<think>\n\n</think>\n\n"),
        ("google-gemma-4-31B-it", {"enable_thinking": False}, "<|channel>thought\n<channel|>"),
        ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", {"enable_thinking": False}, "<think></think>"),
    ],
)
def test_a_variable_switches_the_reasoning(name: str, variables: dict[str, Any], ending: str | None) -> None:
    template = ChatTemplate(tokenizer_of(name), variables)
    if ending is None:
        with pytest.raises(DataError, match=REASONED):
            render(read({"messages": PLAIN}), template)
        return
    samples = render(read({"messages": PLAIN}), template)
    *_, last = samples[-1].trained
    assert samples[-1].text[: last[0]].endswith(ending)
    assert samples[-1].text[last[0] : last[1]].startswith(ANSWERS[1])


@pytest.mark.parametrize("name", TEMPLATES)
def test_reasoning_in_a_field_is_learned_or_said_to_be_left_out(name: str) -> None:
    template = ChatTemplate(tokenizer_of(name))
    if name in REASONING_REFUSED:
        with pytest.raises(DataError, match=REASONING_REFUSED[name]):
            render(REASONED_CHAT, template)
        return
    (sample,) = render(REASONED_CHAT, template)
    ((first, last),) = sample.trained
    said = "assistant turns whose `reasoning_content` the chat template leaves out" in template.notes
    assert ("Because of that." in sample.text[first:last]) != said
    assert ANSWERS[0] in sample.text[first:last]


@pytest.mark.parametrize("name", SWITCHED_ON)
def test_reasoning_is_learned_where_a_variable_switches_it_on(name: str) -> None:
    template = ChatTemplate(tokenizer_of(name), SWITCHED_ON[name])
    (sample,) = render(REASONED_CHAT, template)
    ((first, last),) = sample.trained
    assert sample.text[first:last].index("Because of that.") < sample.text[first:last].index(ANSWERS[0])
    assert not any("leaves out" in note for note in template.notes)


def test_the_reasoning_of_an_r1_is_learned_from_the_content() -> None:
    template = ChatTemplate(tokenizer_of("deepseek-ai-DeepSeek-R1-Distill-Llama-8B"))
    content = "<think>\nBecause of that.\n</think>\n\nThe answer."
    (sample,) = render(read({"messages": [PLAIN[0], {"role": "assistant", "content": content}]}), template)
    ((first, last),) = sample.trained
    assert sample.text[:first].endswith("<｜Assistant｜><think>\n")
    assert sample.text[first:last] == content.removeprefix("<think>\n") + "<｜end▁of▁sentence｜>"
