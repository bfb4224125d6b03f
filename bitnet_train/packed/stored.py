"""A packed layer or an int8 table as it lies in the folder: its tensors in their stored types, as `reader.py` gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from bitnet_train.packed.entries import LayerEntry, TableEntry


@dataclass(frozen=True)
class StoredLayer:
    """A packed layer [N,K]: planes uint8 [P,N,bytes], scale in the scheme's type and shape, bias [N] or None."""

    entry: LayerEntry
    planes: Tensor
    scale: Tensor
    bias: Tensor | None

    def codes(self) -> Tensor:
        """Return the unpacked codes int8 [N,K]; FormatError where the planes are not canonical."""
        from bitnet_train.formats.planes import unpack_planes

        return unpack_planes(self.planes, self.entry.num_inputs, self.entry.scheme.name)


@dataclass(frozen=True)
class StoredTable:
    """An int8 table: codes int8 [V,K], scale float16 [V], bias float32 [V] or None."""

    entry: TableEntry
    codes: Tensor
    scale: Tensor
    bias: Tensor | None
