"""`generation_config.json`: how a model's authors let it write, above all which tokens end a text.

A model that is built from its config alone has settings derived from that config, which knows one end of a text where
a chat model has two (of a text and of a turn). So the file goes with the model, wherever it is read or written.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import FormatError
from bitnet_train.model.turn_end import turn_end

GENERATION_FILE = "generation_config.json"


def restore_generation_settings(model: PreTrainedModel, folder: Path) -> None:
    """Give `model` the settings that lie in its folder; without the file it keeps those of its config.

    Raises FormatError when transformers cannot read the file.
    """
    if not (folder / GENERATION_FILE).is_file():
        return
    try:
        model.generation_config = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # of any kind: transformers takes the file apart without a look at it
        reason = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".")
        raise FormatError(
            f"{folder / GENERATION_FILE} cannot be read: {reason}. Correct the file, or delete it: what is in "
            "config.json is used then."
        ) from error


def with_turn_end(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> GenerationConfig:
    """Return a copy of the model's settings in which the end of a turn, as the chat template writes it, ends too."""
    settings = deepcopy(model.generation_config or GenerationConfig())
    end = None if tokenizer is None else turn_end(tokenizer)
    given = settings.eos_token_id
    ends = given if isinstance(given, list) else [] if given is None else [given]
    if end is not None and end not in ends:
        settings.eos_token_id = [*ends, end] if ends else end
    return settings


def save_generation_settings(model: PreTrainedModel, folder: Path) -> None:
    """Write the settings as they are: `save_pretrained` refuses some that it reads (a temperature when greedy)."""
    if model.generation_config is not None:
        model.generation_config.to_json_file(folder / GENERATION_FILE)
