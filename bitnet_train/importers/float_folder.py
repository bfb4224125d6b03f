"""A float model that transformers reads, and what it leaves unsaid: every tensor has a place and every place a tensor.

transformers fills a weight that a folder lacks with random numbers, and drops one that the model has no place for; both
with a warning. Here each is an error that names the tensor. Left alone are tables that a model computes itself, which
old folders hold too.

A padding token beyond the embedding, common in fine-tunes that added one and forgot to make the table longer, would
end in an assertion of torch's; it is never looked up by a model, so the config goes without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.importers.found import ALLOWED
from bitnet_train.model.config_fields import drop_padding_beyond
from bitnet_train.model.convert import is_tied, untie
from bitnet_train.model.quiet import quiet_transformers
from bitnet_train.rust_panic import panics_as_errors

_COMPUTED = re.compile(r"(.*\.)?(rotary_emb\.inv_freq|attn\.(masked_)?bias|attention\.(masked_)?bias)")
_MOST_NAMES = 5


def read_folder(source: str, folder: Path, dtype: torch.dtype | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a folder with config.json and safetensors; `source` names it in errors.

    Raises ConversionError when transformers cannot read it or it is quantised, FormatError for tensors that are
    missing, unknown, or of another shape.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        _require_float(source, config)
        drop_padding_beyond(config)
        with quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are errors here, and named as such
            )
        model, report = loaded
        with panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except ConversionError:
        raise
    except Exception as error:  # of any kind: transformers takes files apart without a look at them
        raise cannot_load(source, f"from {folder}", error) from error
    require_all_placed(str(folder), model, report)
    if model.config.get_text_config().tie_word_embeddings and not is_tied(model):
        untie(model)  # a head that differs, in a folder whose config says that it cannot: it is the one that is used
    return model.eval(), tokenizer


def require_all_placed(origin: str, model: PreTrainedModel, report: dict[str, Any]) -> None:
    """Raise FormatError naming the tensors that `output_loading_info` calls missing, unknown or of another shape."""
    name = type(model).__name__
    missing = sorted(report["missing_keys"])
    if missing:
        raise FormatError(
            f"{origin} has no values for {_some(missing)}, which {name} needs. The folder is incomplete, or its config "
            "is of another model: download it again."
        )
    wrong = [f"{key}: {_text(given)} for {_text(wanted)}" for key, given, wanted in sorted(report["mismatched_keys"])]
    if wrong:
        raise FormatError(f"{origin} has tensors of other shapes than its config says: {_some(wrong)}.")
    unknown = sorted(key for key in report["unexpected_keys"] if not _COMPUTED.fullmatch(key))
    if unknown:
        raise FormatError(
            f"{origin} has tensors that {name} has no place for, so it would compute something else: {_some(unknown)}. "
            "The config is of another model, or this version of transformers does not know all of its parts."
        )
    if report["error_msgs"]:
        raise FormatError(f"{origin} cannot be read: {report['error_msgs'][0]}")


def _require_float(source: str, config: PreTrainedConfig) -> None:
    if getattr(config, "quantization_config", None) is not None:
        raise ConversionError(
            f"`model.source={source}` is quantised in a way that is not read here (config.quantization_config). Give "
            "the float model, or one with `quant_method: bitnet`."
        )


def cannot_load(source: str, tried: str, error: Exception) -> ConversionError:
    """Say that, and why, nothing can be loaded from a source."""
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    return ConversionError(f"`model.source={source}` cannot be loaded {tried}: {reason}. {ALLOWED}")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _text(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))
