"""What watches a training beside its trackers: texts on the way, the report of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from bitnet_train.config import Config
from bitnet_train.run.prompt import asked
from bitnet_train.run.report import refresh
from bitnet_train.templates.render import render_chat
from bitnet_train.train.loop.reporting import Reporting
from bitnet_train.train.loop.samples import Sample, Samples


def watching(
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    root: Path,
    receive: Callable[[Sample], object] | None = None,
) -> list[Any]:
    """Return the callbacks of `fit`, in the order in which they come; `receive` is given each text as it is written."""
    samples = Samples(
        root,
        tokenizer,
        config.generate.prompt,
        _prompt_ids(config, tokenizer) if config.trainer.samples else [],
        config.trainer.samples,
        max_new_tokens=config.generate.max_new_tokens,
        receive=receive,
    )
    return [samples, Reporting(lambda: refresh(root))]


def _prompt_ids(config: Config, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the prompt as `generate` will read it; none for a chat where the tokenizer has no template of one."""
    prompt = asked(config)
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    if not tokenizer.chat_template:
        return []
    text = render_chat(tokenizer, prompt, variables=config.data.chat_template_variables)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
