"""Put a GGUF file on disk: header, metadata, tensor table, then one tensor at a time.

The `gguf` package writes the container and its metadata. It need not know the type of a tensor for that: the number is
what the file holds, so types newer than the package (Q2_0 is 42) are written by their number and with our own bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bitnet_train.disk import needing
from bitnet_train.errors import ConfigError
from bitnet_train.progress import track

if TYPE_CHECKING:
    from gguf import GGUFWriter

MODEL_NAME = "model.gguf"


@dataclass(frozen=True)
class FileTensor:
    """One tensor of the file: `shape` outermost first, `type_id` as in `enum ggml_type`, `make` gives its bytes."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    num_bytes: int
    make: Callable[[], np.ndarray]
    of: str
    """Our name of it; of a tensor that is computed, what it is."""


def require_package() -> Any:
    """Return the `gguf` package. Raises ConfigError saying how to install it."""
    try:
        import gguf
    except ImportError as error:
        raise ConfigError(
            "`export.format=gguf` needs the package `gguf`. Install it: `pip install 'bitnet-train[gguf]'`."
        ) from error
    return gguf


def write_file(
    path: Path, architecture: str, add_metadata: Callable[[GGUFWriter], None], tensors: Sequence[FileTensor]
) -> None:
    """Write a GGUF file; every tensor is made when it is written and forgotten after."""
    num_bytes = sum(tensor.num_bytes for tensor in tensors)
    with needing(num_bytes), closing(require_package().GGUFWriter(path, architecture)) as writer:
        add_metadata(writer)
        for tensor in tensors:
            number = cast("Any", tensor.type_id)
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.num_bytes, raw_dtype=number)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in track(tensors, "Writing", len(tensors)):
            values = tensor.make()
            assert values.nbytes == tensor.num_bytes, f"{tensor.name}: {values.nbytes} bytes"
            writer.write_tensor_data(values)
