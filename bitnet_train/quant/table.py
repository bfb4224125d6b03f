"""Tables by their bits: 8 (`quant.int8_table`), or 5 or 4, which are int8 of fewer values (`quant.narrow_table`)."""

from __future__ import annotations

from torch import Tensor

from bitnet_train.quant.int8_table import quantize_table, round_table
from bitnet_train.quant.narrow_table import quantize_narrow, round_narrow


def table_codes(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes int8 [V, K] and scale float16 [V] of a float table [V, K].

    Raises ConversionError when a weight is not finite, or a row's scale is beyond float16.
    """
    return quantize_table(weight) if bits == 8 else quantize_narrow(weight, bits)


def round_to_bits(weight: Tensor, out: Tensor, bits: int) -> None:
    """Write scale * codes of a float32 table [V, K] to `out`, which may be it.

    Raises as `table_codes` does, with nothing changed.
    """
    if bits == 8:
        round_table(weight, out)
    else:
        round_narrow(weight, bits, out)
