"""What a run holds in memory, part by part, before it starts, and whether that fits on the devices it asks for.

```
weights       the student in float32, and the values behind what trains rounded
gradients     float32, of what trains
optimizer     two moments of what trains, float32
teacher       its weights, linear layers in bfloat16 where products are; on a CPU as they were loaded, for what
              rounding frees is not given back, and lies in holes
activations   what the forward pass keeps for the backward one, of one micro-batch (`activations`); on a CPU with the
              holes between (`heap`)
logits        of one micro-batch, both models, with their gradient; of logits that are made in parts (`head_loss`) one
              part, and the heads in the type of the product
```

All are not there at once. The forward pass ends with activations and logits, and gradients of earlier micro-batches if
there are any; as the backward pass makes gradients it lets activations go. So the most is

    weights + teacher + optimizer + running + max(activations + logits + gradients before, gradients)

where a block that runs holds for itself about as much as it keeps, the student's and, before it, the teacher's, whose
memory a heap does not join for the other.

Sharded over N devices (`fsdp`), weights, gradients and optimizer are N times as small; processes on one CPU share its
memory, which then holds each of them. What libraries take for themselves, some hundreds of megabytes, comes on top, and
for a moment the whole logits of a batch where it is settled whether a teacher in int8 will do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.quantized_linear import Products
from bitnet_train.model.rounded_table import stored_parameters
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.train.loop.activations import Kept
from bitnet_train.train.loop.module import BitLightningModule
from bitnet_train.train.losses.head_loss import held_rows

FLOAT32_BYTES, BFLOAT16_BYTES = 4, 2
WALKED = 6  # tensors of `logit_loss.walk` over a part
SHARDED = ("fsdp",)


@dataclass(frozen=True)
class Memory:
    """Bytes of each part on one device; `activations` is None where they were not counted."""

    weights: int
    gradients: int
    optimizer: int
    teacher: int
    logits: int
    activations: int | None = None
    running: int = 0
    accumulates: bool = False
    """Whether gradients of earlier micro-batches are there while a later one runs."""

    @property
    def most(self) -> int:
        """The most that is held at once, as the module docstring says."""
        forward = (self.activations or 0) + self.logits + (self.gradients if self.accumulates else 0)
        return self.weights + self.teacher + self.optimizer + self.running + max(forward, self.gradients)

    @property
    def certain(self) -> int:
        """What is there whatever the model keeps between its passes: all parts but the activations."""
        return self.weights + self.teacher + self.optimizer + self.gradients + self.logits

    def parts(self) -> dict[str, int | None]:
        """Return the parts by the names of the module docstring."""
        names = ("weights", "gradients", "optimizer", "teacher", "activations", "logits")
        return {name: getattr(self, name) for name in names}

    def describe(self) -> str:
        """Return one line for people."""
        told = ", ".join(f"{name} {_gb(size)}" for name, size in self.parts().items() if size is not None)
        rest = "" if self.activations is not None else ", and the activations of a micro-batch"
        return f"{_gb(self.most)} at most at once{rest} ({told})"


@dataclass(frozen=True)
class Room:
    """What one device, or the machine, has free, in bytes; None where it does not say."""

    where: str
    free: int | None

    def verdict(self, needed: int) -> str:
        """Return a sentence that says whether so many bytes fit, and if not what takes less."""
        if self.free is None:
            return f"How much memory {self.where} has free is not known."
        if needed <= self.free:
            return f"It fits: {self.where} has {_gb(self.free)} free."
        return (
            f"It does not fit: {self.where} has {_gb(self.free)} free. Fewer rows at a time (`trainer.micro_rows`), "
            "shorter ones (`data.context_tokens`), an adapter (`adapter=lora_inside`) or blocks take less."
        )


def memory(
    module: BitLightningModule,
    micro_tokens: int,
    device: torch.device,
    *,
    bf16: bool = False,
    products: Products = "float",
    kept: Kept | None = None,
    accumulates: bool = False,
    checkpointed: bool = False,
    shards: int = 1,
) -> Memory:
    """Return what a run of `module` takes on a device, by micro-batches of `micro_tokens` tokens."""
    trainable = sum(p.numel() for p in module.student.parameters() if p.requires_grad)
    masters = sum(p.numel() for p, _ in stored_parameters(module.student) if p.requires_grad) if module.rounded else 0
    own = _bytes(module.student) + FLOAT32_BYTES * masters
    rounds = bf16 and module.teacher_cache is None
    return Memory(
        weights=own // shards,
        gradients=FLOAT32_BYTES * trainable // shards,
        optimizer=2 * FLOAT32_BYTES * trainable // shards,
        teacher=0 if module.teacher is None else _teacher_bytes(module.teacher, rounds and device.type != "cpu"),
        logits=_logit_bytes(module, micro_tokens, device, bf16),
        activations=None if kept is None else _activation_bytes(module, kept, products, device, checkpointed),
        running=0 if kept is None else kept.block * (1 if module.teacher is None else 2),
        accumulates=accumulates,
    )


def room(device: torch.device) -> Room:
    """Return what is free where a run computes."""
    if device.type == "cuda":
        return Room(torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0])
    return Room("this machine", _available())


def _available() -> int | None:
    """Return what Linux says can be taken without swapping, less where the control group allows less."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    free = int(found[1]) * 1024 if found else None
    try:
        group = Path("/sys/fs/cgroup")
        left = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no control group, or "max"
        return free
    return left if free is None else min(free, left)


def _bytes(model: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _teacher_bytes(teacher: nn.Module, rounds: bool) -> int:
    if not rounds:
        return _bytes(teacher)
    linear = {id(p) for layer in teacher.modules() if isinstance(layer, nn.Linear) for p in layer.parameters(False)}
    return sum(p.numel() * (BFLOAT16_BYTES if id(p) in linear else p.element_size()) for p in teacher.parameters())


def _activation_bytes(
    module: BitLightningModule, kept: Kept, products: Products, device: torch.device, checkpointed: bool
) -> int:
    return kept.total(checkpointed=checkpointed, on_heap=device.type == "cpu") + _packed_bytes(module, products)


def _packed_bytes(module: BitLightningModule, products: Products) -> int:
    """Return the bytes of packed weights that integer products keep for dx: bits, twice, or int8 beside them."""
    if products != "integer":
        return 0
    layers = [layer for layer in bit_layers(module.student).values() if layer.kind == "linear"]
    return sum(layer.weight.numel() * (2 if _has_a_scale_a_row(layer.weight_scheme) else 9) // 8 for layer in layers)


def _has_a_scale_a_row(scheme: WeightScheme) -> bool:
    return scheme.code_set == "binary" and scheme.granularity != "group"


def _logit_bytes(module: BitLightningModule, micro_tokens: int, device: torch.device, bf16: bool) -> int:
    """Return the bytes over the vocabulary held at once: logits of both models, heads in bfloat16, dW of the head.

    A GPU walks over all rows of a part at once, with both softmaxes and what compares them in float32 beside them.
    """
    student: Any = module.student
    weight: Tensor = student.get_output_embeddings().weight
    rows, vocabulary = held_rows(micro_tokens, len(weight), device), len(weight)
    own = rows if module.heads.student is not None else 2 * micro_tokens
    told = rows if module.heads.teacher is not None else micro_tokens
    numbers = vocabulary * (own + (told if module.teacher is not None else 0))
    cast = BFLOAT16_BYTES * weight.numel() if bf16 and module.heads.student is not None else 0
    gradient = FLOAT32_BYTES * weight.numel() if weight.requires_grad and module.heads.student is not None else 0
    walked = (
        0 if device.type == "cpu" else WALKED * FLOAT32_BYTES * held_rows(micro_tokens, vocabulary, device) * vocabulary
    )
    return (BFLOAT16_BYTES if bf16 else FLOAT32_BYTES) * numbers + cast + gradient + walked


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
