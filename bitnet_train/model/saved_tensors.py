"""Write safetensors files that whoever may read the files beside them may read.

The library (0.6 and later) writes a temporary file of mode 0600 and renames it; every other file gets what the umask
leaves of 0666. So the modes differ within one folder, and a group or a web server finds weights that it cannot open.
Every safetensors file of this package is written here, or by `exporters.safetensors_stream`, which opens it plainly.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bitnet_train.disk import needing

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write contiguous tensors, none of which share memory. Raises SafetensorError as the library does."""
    from safetensors.torch import save_file

    with needing(sum(tensor.nbytes for tensor in tensors.values())):
        save_file(dict(tensors), path, metadata=dict(metadata))
    follow_umask(path)


def save_arrays(arrays: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]) -> None:
    """Write contiguous arrays; torch is not imported. Raises SafetensorError as the library does."""
    from safetensors.numpy import save_file

    with needing(sum(array.nbytes for array in arrays.values())):
        save_file(dict(arrays), path, metadata=dict(metadata))
    follow_umask(path)


def save_module(module: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the state of a module, tensors that share memory once. Raises SafetensorError as the library does."""
    from safetensors.torch import save_model

    with needing(sum(tensor.nbytes for tensor in {*module.parameters(), *module.buffers()})):
        save_model(module, str(path), metadata=dict(metadata))
    follow_umask(path)


def follow_umask(path: Path) -> None:
    """Give a file the mode that a new one gets in its folder.

    It is asked of a new file: reading the umask means to change it for a moment, for every thread of the process.
    """
    probe = path.with_name(f".{path.name}.mode-{os.getpid()}")
    probe.touch()
    try:
        path.chmod(stat.S_IMODE(probe.stat().st_mode))
    finally:
        probe.unlink()
