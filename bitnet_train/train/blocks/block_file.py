"""A reconstructed block on disk: its tensors as safetensors, its errors in the file's metadata, renamed when whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from bitnet_train.errors import TrainingError
from bitnet_train.json_text import parse_json
from bitnet_train.model.saved_tensors import save_tensors
from bitnet_train.whole import whole_file


@dataclass(frozen=True)
class BlockResult:
    """Error before and after, relative to the mean square of the full-precision block's output; the time it took."""

    before: float
    after: float
    seconds: float = 0.0


def save_block(block: nn.Module, result: BlockResult, file: Path, prefix: str) -> None:
    """Write the tensors of a block under their names in the model, which begin with `prefix`; whole or not at all."""
    tensors = {f"{prefix}{name}": tensor.contiguous() for name, tensor in block.state_dict().items()}
    with whole_file(file) as draft:
        save_tensors(tensors, draft, {"format": "pt", "result": json.dumps(asdict(result))})


def load_block(block: nn.Module, file: Path, prefix: str) -> BlockResult | None:
    """Load a saved block in place and return its result; None where there is no file. TrainingError if damaged."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as saved:
            names = saved.keys()
            block.load_state_dict({name.removeprefix(prefix): saved.get_tensor(name) for name in names})
            return BlockResult(**parse_json((saved.metadata() or {})["result"]))
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        raise TrainingError(f"{file} is damaged: {error}. Remove it, and its block is trained again.") from error
