"""A model whose parameters are spread over the processes of a run: FSDP2 (`torch.distributed.fsdp.fully_shard`).

```
at rest      each process holds its share of every parameter: rows r of dimension 0, and of its gradient and moments
in a block   the whole block is gathered before its forward and its backward, and let go of after
```

So a 1-bit layer quantises a whole weight, and codes and scales, also one for the whole tensor, are exactly those of one
process. A unit is a decoder block with its adapters and scales; what is left (embedding, head, last norm) is one more.
The order is: convert, adapters, then here, then the optimiser, which sees the shares. The teacher is no part of it:
every process has a whole one. Rounding (`quant.stored`) goes row by row, so each process rounds its share.

A checkpoint is that of one process: tensor by tensor gathered, and written by the first. Every verb reads it, and a run
may be continued on another number of processes, or on one. What looks at the codes of all layers between steps
(samples, `flips`, telemetry) is left out while a model is spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from bitnet_train.model.start.blocks import decoder_blocks
from bitnet_train.train.loop.resume import saved_names
from bitnet_train.train.loop.spread import whole


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy for such models over `num_processes`, with our own checkpoints."""

    def __init__(self, num_processes: int) -> None:
        super().__init__(data_parallel_size=num_processes, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Let Lightning hand over the moments of a checkpoint."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds: whole on the first process, empty tensors on the others."""
        module: Any = self.lightning_module
        state = module.state_dict()
        return {name: self._gathered(state[name]) for name in saved_names(module)}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's share of what a checkpoint holds."""
        module: Any = self.lightning_module
        state = module.state_dict()
        with torch.no_grad():
            for name, tensor in checkpoint["state_dict"].items():
                state[name].copy_(_share_of(tensor, state[name]))

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return the optimiser's state as that of one process, as `lightning_module_state_dict` does."""
        state = getattr(optimizer, "optimizer", optimizer).state_dict()
        moments = {
            number: {name: self._gathered(value) for name, value in kept.items()}
            for number, kept in state["state"].items()
        }
        return {**state, "state": moments}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's share of the moments."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            shares = {
                number: {name: _share_of(value, parameters[int(number)]) for name, value in kept.items()}
                for number, kept in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shares})

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint by the first process, as where nothing is spread."""
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, on every process."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def _gathered(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        everything = whole(value)
        return everything.cpu() if self.is_global_zero else everything.new_empty(0, device="cpu")


def shard(model: Any, mesh: Any) -> None:
    """Spread the parameters of a causal LM, adapted or not, over the processes of a device mesh, in place."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    for block in decoder_blocks(base)[1]:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)  # outside a pass every parameter is a share


def _share_of(value: Any, like: Tensor) -> Any:
    """Return this process's share of a whole tensor that is as large as `like`; anything else as it is."""
    if not isinstance(value, Tensor) or not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
