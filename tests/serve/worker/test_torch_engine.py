"""A model of transformers behind the batcher: the texts that `generate` of transformers writes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bitnet_train.importers.load import load_pretrained
from bitnet_train.runtime.native.tokens import TokensOfTransformers
from bitnet_train.serve.worker.asked import read_asked
from bitnet_train.serve.worker.batcher import Batcher, Limits
from bitnet_train.serve.worker.text import Text
from bitnet_train.serve.worker.torch_engine import TorchEngine

PROMPTS = ["def main(", "import os\nimport sys\n" * 10, "class A:\n    def"]


@pytest.fixture(scope="module")
def loaded() -> Any:
    return load_pretrained("tiny")


@pytest.fixture
def engine(loaded: Any) -> TorchEngine:
    return TorchEngine(loaded.model, TokensOfTransformers(loaded.tokenizer))


def write(engine: TorchEngine, prompts: list[str], batcher: Batcher | None = None) -> list[dict[str, Any]]:
    batcher = batcher or Batcher(engine, Limits())
    for prompt in prompts:
        message = {"id": prompt, "prompt": prompt, "max_new_tokens": 12}
        batcher.add(Text(prompt, read_asked(message, engine.tokens, engine.facts, {}), engine))
    events = []
    while batcher.is_busy:
        events += batcher.step()
    return events


def text_of(events: list[dict[str, Any]], prompt: str) -> str:
    return "".join(event["text"] for event in events if event["id"] == prompt and event["is"] == "piece")


def test_texts_side_by_side_are_those_of_generate(engine: TorchEngine, loaded: Any) -> None:
    events = write(engine, PROMPTS)
    for prompt in PROMPTS:
        ids = loaded.tokenizer(prompt, return_tensors="pt").input_ids
        with torch.inference_mode():
            made = loaded.model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert text_of(events, prompt) == loaded.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


def test_the_beginning_of_a_chat_is_read_once(engine: TorchEngine) -> None:
    batcher = Batcher(engine, Limits())
    write(engine, [PROMPTS[1]], batcher)
    longer = PROMPTS[1] + "import re\n"
    begun = next(event for event in write(engine, [longer], batcher) if event["is"] == "begun")
    assert begun["cached_tokens"] > begun["prompt_tokens"] - 10
    assert text_of(write(engine, [longer], batcher), longer) == text_of(write(engine, [longer]), longer)


def test_what_is_fixed_of_a_model_comes_from_its_configuration(engine: TorchEngine, loaded: Any) -> None:
    assert engine.facts.context == loaded.model.config.max_position_embeddings
    assert engine.facts.vocab == loaded.model.config.vocab_size
    assert TorchEngine(loaded.model, engine.tokens, most_tokens=64).facts.context == 64


def test_a_text_that_fails_leaves_the_others_as_they_would_be_alone(
    engine: TorchEngine, caplog: pytest.LogCaptureFixture
) -> None:
    batcher, events = Batcher(engine, Limits()), []
    for prompt in PROMPTS:
        message = {"id": prompt, "prompt": prompt, "max_new_tokens": 12}
        batcher.add(Text(prompt, read_asked(message, engine.tokens, engine.facts, {}), engine))
    for _ in range(4):
        events += batcher.step()
    last = batcher._running[-1]
    last.ids[-1] = engine.facts.vocab + 7
    while batcher.is_busy:
        events += batcher.step()
    assert [event["id"] for event in events if event["is"] == "error"] == [last.key]
    for prompt in PROMPTS[:-1]:
        assert text_of(events, prompt) == text_of(write(engine, [prompt]), prompt)
    assert "A text was ended" in caplog.text
