"""Turn a pretrained causal language model into a true 1-bit model, keep it good, and prove the packed result.

The steps of the command line, as functions (each documents its shapes and errors; docs/python.md shows them at work):

    load_pretrained(source)                a float model with its tokenizer: "tiny", a folder, a GGUF file, a hub id
    plan(model, "binary_row")              what convert would do to every layer; changes nothing
    convert(model, "binary_row")           float layers -> 1-bit ones, all or nothing; returns the plan it carried out
    attach(model, "lora_inside")           LoRA inside the quantiser, or what else trains
    fit(model, loader, folder, teacher=)   distil with your own loader; BitLightningModule in a Trainer of your own,
                                           distillation_loss in a loop of your own
    merge(model)                           W <- W + sBA, bit for bit the function that was trained
    export(model, tokenizer, folder)       one folder: planes, scales, manifest, tokenizer
    export_as("gguf", packed, folder)      that folder in the format of another program
    load(path)                             that folder as a Hugging Face model on the CPU kernel
    NativeModel.load(path)                 the same in C++, without torch: fast and small
    validate(path, ...)                    six levels of proof that it computes what was trained

A choice is named as in `configs/`, or given as an object: WeightScheme, ActivationScheme, Selection, AdapterConfig,
LossConfig, OptimConfig, ScheduleConfig, ExportOptions. Errors for people are a BitnetTrainError.

Importing this package imports no torch; the first use of a name above does. From then on transformers knows packed
folders too: `AutoModelForCausalLM.from_pretrained(path)` gives the model of `load(path)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bitnet_train.when_imported import when_imported

if TYPE_CHECKING:
    from bitnet_train.errors import BitnetTrainError
    from bitnet_train.exporters.options import ExportOptions
    from bitnet_train.exporters.packed import export_packed as export
    from bitnet_train.exporters.registry import export_as
    from bitnet_train.importers.load import load_pretrained
    from bitnet_train.model.bit_linear import BitLinear
    from bitnet_train.model.merge import merge
    from bitnet_train.model.plan import Plan
    from bitnet_train.model.settings import AdapterConfig, Selection
    from bitnet_train.python.surgery import attach, convert
    from bitnet_train.python.surgery import plan_conversion as plan
    from bitnet_train.python.training import distillation_loss, fit
    from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
    from bitnet_train.runtime.load import load
    from bitnet_train.runtime.native.model import NativeModel
    from bitnet_train.train.loop.fit import FitResult
    from bitnet_train.train.loop.module import BitLightningModule
    from bitnet_train.train.loop.schedules import ScheduleConfig
    from bitnet_train.train.loop.settings import OptimConfig
    from bitnet_train.train.losses.settings import LossConfig
    from bitnet_train.validation.validate import validate

__version__ = "0.1.0"

__all__ = [
    "ActivationScheme",
    "AdapterConfig",
    "BitLightningModule",
    "BitLinear",
    "BitnetTrainError",
    "ExportOptions",
    "FitResult",
    "LossConfig",
    "NativeModel",
    "OptimConfig",
    "Plan",
    "ScheduleConfig",
    "Selection",
    "WeightScheme",
    "__version__",
    "attach",
    "convert",
    "distillation_loss",
    "export",
    "export_as",
    "fit",
    "load",
    "load_pretrained",
    "merge",
    "plan",
    "validate",
]

_HOMES = {
    "ActivationScheme": ("bitnet_train.quant.scheme", "ActivationScheme"),
    "AdapterConfig": ("bitnet_train.model.settings", "AdapterConfig"),
    "BitLightningModule": ("bitnet_train.train.loop.module", "BitLightningModule"),
    "BitLinear": ("bitnet_train.model.bit_linear", "BitLinear"),
    "BitnetTrainError": ("bitnet_train.errors", "BitnetTrainError"),
    "ExportOptions": ("bitnet_train.exporters.options", "ExportOptions"),
    "FitResult": ("bitnet_train.train.loop.fit", "FitResult"),
    "LossConfig": ("bitnet_train.train.losses.settings", "LossConfig"),
    "NativeModel": ("bitnet_train.runtime.native.model", "NativeModel"),
    "OptimConfig": ("bitnet_train.train.loop.settings", "OptimConfig"),
    "Plan": ("bitnet_train.model.plan", "Plan"),
    "ScheduleConfig": ("bitnet_train.train.loop.schedules", "ScheduleConfig"),
    "Selection": ("bitnet_train.model.settings", "Selection"),
    "WeightScheme": ("bitnet_train.quant.scheme", "WeightScheme"),
    "attach": ("bitnet_train.python.surgery", "attach"),
    "convert": ("bitnet_train.python.surgery", "convert"),
    "distillation_loss": ("bitnet_train.python.training", "distillation_loss"),
    "export": ("bitnet_train.exporters.packed", "export_packed"),
    "export_as": ("bitnet_train.exporters.registry", "export_as"),
    "fit": ("bitnet_train.python.training", "fit"),
    "load": ("bitnet_train.runtime.load", "load"),
    "load_pretrained": ("bitnet_train.importers.load", "load_pretrained"),
    "merge": ("bitnet_train.model.merge", "merge"),
    "plan": ("bitnet_train.python.surgery", "plan_conversion"),
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
