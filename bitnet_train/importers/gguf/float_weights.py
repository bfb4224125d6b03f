"""A float GGUF of an architecture that `gguf_architecture` does not list, read by transformers and checked after it.

transformers knows more architectures (Falcon, BLOOM, StableLM, Qwen's mixtures of experts, ...), but drops the tensors
that it has no place for, and leaves rotary scaling out. So the positions of its config are completed (`gguf_rope`), and
the file and the model are held against each other: no parameter without a tensor, and as many values in the one as in
the other, which is how a tensor that was dropped, or split over several parameters, is told from one that was not.

transformers leaves a model from GGUF marked as quantised, which breaks `.float()` and saving; the marks are removed.
"""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from math import prod
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.gguf.file import GgufFile
from bitnet_train.importers.float_folder import cannot_load, require_all_placed
from bitnet_train.importers.gguf.config import HEAD
from bitnet_train.importers.gguf.metadata import architecture_name, check_sizes, restore_pre_tokenizer
from bitnet_train.importers.gguf.rope import ROPE_TENSORS, complete_rope
from bitnet_train.model.quiet import quiet_transformers
from bitnet_train.rust_panic import panics_as_errors


def import_other_gguf(gguf: GgufFile, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in evaluation mode, its values rounded to bfloat16 and kept in `dtype`, and its tokenizer.

    Raises ConversionError when transformers does not read the file, FormatError for tensors that are missing or that
    have no place, and for rotary positions that a config cannot state.
    """
    architecture = architecture_name(gguf)
    check_sizes(gguf)
    folder, name = gguf.path.absolute().parent, gguf.path.name
    try:
        with quiet_transformers(), redirect_stderr(StringIO()):  # a bar that no setting switches off
            config = AutoConfig.from_pretrained(folder, gguf_file=name, trust_remote_code=False)
            complete_rope(config, gguf, architecture)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                gguf_file=name,
                dtype=torch.float32,
                trust_remote_code=False,
                output_loading_info=True,
            )
            model, report = loaded
            with panics_as_errors():
                tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, trust_remote_code=False)
    except (FormatError, ConversionError):
        raise
    except Exception as error:  # of any kind: transformers takes files apart without a look at them
        raise cannot_load(str(gguf.path), f"as a GGUF of architecture {architecture}", error) from error
    require_all_placed(str(gguf.path), model, report)
    _require_all_used(gguf, model)
    _unmark(model)
    restore_pre_tokenizer(tokenizer, gguf)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    nn.Module.to(model, dtype)
    return model.eval(), tokenizer


def _require_all_used(gguf: GgufFile, model: PreTrainedModel) -> None:
    own = {id(tensor): tensor.numel() for tensor in model.state_dict(keep_vars=True).values()}
    sizes = {name: prod(tensor.shape) for name, tensor in gguf.tensors.items() if name not in ROPE_TENSORS}
    if model.config.get_text_config().tie_word_embeddings:
        sizes.pop(HEAD, None)
    given, needed = sum(sizes.values()), sum(own.values())
    if given != needed:
        names = _unplaced(sizes, model) or ["some"]
        raise FormatError(
            f"{gguf.path} holds {given:,} values and {type(model).__name__} {needed:,}: tensors would be left out, "
            f"among them {', '.join(names[:5])}. Give the Hugging Face folder of this model."
        )


def _unplaced(sizes: dict[str, int], model: PreTrainedModel) -> list[str]:
    """The likely ones: tensors of a size that no parameter has, or fewer parameters than there are tensors."""
    left = [parameter.numel() for parameter in model.parameters()]
    names = []
    for name, size in sizes.items():
        if size in left:
            left.remove(size)
        else:
            names.append(name)
    return names


def _unmark(model: PreTrainedModel) -> None:
    for owner, mark in ((model, "hf_quantizer"), (model, "is_quantized"), (model.config, "quantization_config")):
        if mark in vars(owner):
            delattr(owner, mark)
