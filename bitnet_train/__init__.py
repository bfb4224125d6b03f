"""Turn a pretrained causal language model into a true 1-bit model, keep it good, and prove the packed result.

The steps of the command line, as functions (each documents its shapes and errors):

    convert(model, ...)                    float layers -> 1-bit ones, all or nothing; returns the plan it carried out
    attach(model, config)                  LoRA inside the quantiser, or what else trains
    merge(model)                           W <- W + sBA, bit for bit the function that was trained
    export(model, tokenizer, folder)       one folder: planes, scales, manifest, tokenizer
    load(path)                             that folder as a Hugging Face model on the CPU kernel
    NativeModel.load(path)                 the same for the Llama family in C++, without torch: fast and small
    validate(path, ...)                    six levels of proof that it computes what was trained

Importing this package imports no torch; the first use of a name above does. From then on transformers knows packed
folders too: `AutoModelForCausalLM.from_pretrained(path)` gives the model of `load(path)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bitnet_train.when_imported import when_imported

if TYPE_CHECKING:
    from bitnet_train.model.bit_lora import attach
    from bitnet_train.model.convert import convert
    from bitnet_train.model.merge import merge
    from bitnet_train.packed.writer import export_packed as export
    from bitnet_train.runtime.load import load
    from bitnet_train.runtime.native.model import NativeModel
    from bitnet_train.validation.validate import validate

__version__ = "0.1.0"

__all__ = ["NativeModel", "__version__", "attach", "convert", "export", "load", "merge", "validate"]

_HOMES = {
    "NativeModel": ("bitnet_train.runtime.native.model", "NativeModel"),
    "attach": ("bitnet_train.model.bit_lora", "attach"),
    "convert": ("bitnet_train.model.convert", "convert"),
    "export": ("bitnet_train.packed.writer", "export_packed"),
    "load": ("bitnet_train.runtime.load", "load"),
    "merge": ("bitnet_train.model.merge", "merge"),
    "validate": ("bitnet_train.validation.validate", "validate"),
}


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on first use."""
    if name in _HOMES:
        module, function = _HOMES[name]
        return getattr(import_module(module), function)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    """List the public names, imported yet or not."""
    return sorted({*globals(), *__all__})


when_imported("lm_eval.models", lambda: import_module("bitnet_train.evaluate.lm_eval_model"))
when_imported("transformers.quantizers.auto", lambda: import_module("bitnet_train.runtime.hf_quantizer"))
