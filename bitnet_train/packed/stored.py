"""A packed layer or a table of the folder, as `reader.py` gives: in stored types, but for codes in 4 or 5 bits."""

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

        return unpack_planes(self.planes, self.entry.num_inputs, self.entry.scheme.code_set)


@dataclass(frozen=True)
class StoredTable:
    """A table, of whatever bits: codes int8 [V,K], scale float16 [V], bias float32 [V] or None."""

    entry: TableEntry
    codes: Tensor
    scale: Tensor
    bias: Tensor | None
