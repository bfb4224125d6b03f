"""A LoRA outside the quantiser as a GGUF adapter file, which llama.cpp adds to an exported base with `--lora`.

    ours        y = Q(W) x + s B A x           s = alpha / sqrt(r) (rsLoRA) or alpha / r, of each layer
    llama.cpp   y = W x + (a / r) B (A x)      a = `adapter.lora.alpha`, one for the file; a / r is 1 where a is 0

so a = s r. Where layers differ in s r, or it is 0, the rest goes into B. The factors are float32, as trained:

    <tensor of the base>.lora_a   [r, K]       <tensor of the base>.lora_b   [N, r]

The rows of B follow the rows of its base tensor: for query and key of the `llama` architecture llama.cpp's order of a
head is another (see `gguf/architecture.py`). Sources: src/llama-adapter.cpp and convert_lora_to_gguf.py of
llama.cpp. An adapter inside the quantiser has no such file: it is merged, and the base is exported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.errors import ConversionError
from bitnet_train.exporters.gguf.container import FileTensor, require_package, write_file
from bitnet_train.gguf.architecture import GgufArchitecture, architecture_of
from bitnet_train.model.bit_linear import clean_name
from bitnet_train.model.lora_layers import LoraOutside
from bitnet_train.packed.export_folder import export_folder

if TYPE_CHECKING:
    from gguf import GGUFWriter

ADAPTER_NAME = "adapter.gguf"
CARD_NAME = "README.md"
_FLOAT32 = 0  # in `enum ggml_type`
_ALL_FLOAT32 = 0  # in `enum llama_ftype`
_CARD = """---
library_name: gguf
---

# LoRA adapter

A low-rank adapter of rank {ranks} on {num_layers} layers of a {architecture} model, beside 1-bit weights that it does
not change. It belongs to the base it was trained on and to no other:

```
llama-cli -m model.gguf --lora {name}
```
"""


@dataclass(frozen=True)
class _Pair:
    """The factors of one layer: A [r, K], B [N, r], both on their way to the file, and s r of that layer."""

    target: str
    a: Tensor
    b: Tensor
    strength: float


def write_adapter(
    model: PeftModel, out: str | Path, *, adapter: str = "default", force: bool = False
) -> dict[str, Any]:
    """Write the adapter of a model with `adapter.kind=lora_outside` into the folder `out`, whole or not at all.

    Parameters
    ----------
    model
        What `attach` returned, or a trained one like it; it stays as it is.
    out
        A folder that does not exist or is empty: `adapter.gguf` and a README.md go there.
    adapter
        PEFT's name of the adapter.
    force
        Replace an earlier adapter at `out`, and only that.

    Returns
    -------
    Facts for a record: file, architecture, ranks, alpha as llama.cpp reads it, number of layers and of values.

    Raises
    ------
    ConversionError
        When the adapter is inside the quantiser or of another kind, is not finite, or sits on a layer that llama.cpp
        has no tensor for.
    ConfigError
        Without the `gguf` package.
    FormatError
        When the target is taken, or cannot be written.
    """
    require_package()
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    config = base.config.to_dict()
    architecture = architecture_of(config)
    pairs = [_pair(name, layer, adapter, architecture, config) for name, layer in _adapted(model, adapter)]
    if not pairs:
        raise ConversionError(f"The model has no layer with an adapter named {adapter!r}. Train one, or name another.")
    alpha = max(pair.strength for pair in pairs) or 1.0

    def add_metadata(writer: GGUFWriter) -> None:
        writer.add_type("adapter")
        writer.add_file_type(_ALL_FLOAT32)
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)

    facts = {
        "file": ADAPTER_NAME,
        "architecture": architecture.name,
        "ranks": sorted({len(pair.a) for pair in pairs}),
        "alpha": alpha,
        "num_layers": len(pairs),
        "num_values": sum(pair.a.numel() + pair.b.numel() for pair in pairs),
    }
    with export_folder(Path(out).absolute(), force=force, owned=lambda _: {ADAPTER_NAME, CARD_NAME}) as folder:
        write_file(folder / ADAPTER_NAME, architecture.name, add_metadata, list(_tensors(pairs, alpha)))
        ranks = ", ".join(map(str, facts["ranks"]))
        card = {"ranks": ranks, "num_layers": len(pairs), "architecture": architecture.name, "name": ADAPTER_NAME}
        (folder / CARD_NAME).write_text(_CARD.format(**card), encoding="utf-8")
    return facts


def _adapted(model: PeftModel, adapter: str) -> Iterator[tuple[str, LoraOutside]]:
    """Yield clean name and layer of everything that `adapter` is on."""
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        if not any(adapter in factors for factors in (module.lora_A, module.lora_embedding_A)):
            continue
        if not isinstance(module, LoraOutside):
            raise ConversionError(
                f"{clean_name(name)} has a {type(module).__name__}, and only adapters of `adapter.kind=lora_outside` "
                "are written to a GGUF adapter. One inside the quantiser becomes part of the 1-bit weights: merge it, "
                "and export the merged model with `export.format=gguf`."
            )
        yield clean_name(name), module


def _pair(name: str, layer: LoraOutside, adapter: str, architecture: GgufArchitecture, config: dict[str, Any]) -> _Pair:
    target = architecture.to_gguf(f"{name}.weight")
    if target is None:
        raise ConversionError(f"{name} has an adapter, and llama.cpp's {architecture.name} has no such tensor.")
    a, b = (_factor(factors[adapter]) for factors in (layer.lora_A, layer.lora_B))
    if not (bool(a.isfinite().all()) and bool(b.isfinite().all())):
        raise ConversionError(f"The adapter of {name} is not finite. Go back to an earlier checkpoint.")
    return _Pair(target, a, architecture.rows_to_gguf(name, b, config), layer.scaling[adapter] * len(a))


def _factor(linear: nn.Module) -> Tensor:
    assert isinstance(linear, nn.Linear)
    return linear.weight.detach().float().cpu()


def _tensors(pairs: list[_Pair], alpha: float) -> Iterator[FileTensor]:
    for pair in pairs:
        yield _tensor(f"{pair.target}.lora_a", pair.a)
        yield _tensor(f"{pair.target}.lora_b", pair.b * (pair.strength / alpha))


def _tensor(name: str, values: Tensor) -> FileTensor:
    array = np.ascontiguousarray(values.numpy())
    return FileTensor(name, tuple(values.shape), _FLOAT32, array.nbytes, lambda: array, name)
