"""Bits of a packed embedding as 64-bit words: `planes_v1` with every group padded to whole words.

    words int64 [P, N, G, W],  W = ceil(group_size / 64);  input k of a group is bit k % 64 of word k // 64

Rows stay apart, so that single ones can be looked up. Linear layers use the layouts of csrc instead (see `ops.pack`).
Padding bits are zero. Made once, at load.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from bitnet_train.formats.planes import WORD_BITS, codes_from_bits, pack_bits, plane_bits, row_bytes
from bitnet_train.kernels.reference import count_groups


def words_per_group(group_size: int) -> int:
    """Return W, the 64-bit words of one padded group."""
    return -(-group_size // WORD_BITS)


def repack(planes: torch.Tensor, num_inputs: int, group_size: int, name: str) -> torch.Tensor:
    """Rearrange planes uint8 [P, N, bytes] of scheme `name` into words int64 [P, N, G, W].

    Raises FormatError for damaged planes, KernelError when `group_size` does not divide `num_inputs`.
    """
    num_groups = count_groups(num_inputs, group_size)
    bits = plane_bits(planes, num_inputs, name)
    bits = bits.reshape(*bits.shape[:2], num_groups, group_size)
    return torch.from_numpy(_native(pack_bits(bits, row_bytes(group_size)).view(np.int64)))


def unpack_words(words: torch.Tensor, group_size: int, name: str) -> torch.Tensor:
    """Return the codes int8 [N, K] of words int64 [P, N, G, W], on the device of the words."""
    little_endian = _native(words.numpy(force=True)).view(np.uint8)
    bits = np.unpackbits(little_endian, axis=-1, count=group_size, bitorder="little")
    num_inputs = words.shape[2] * group_size
    return codes_from_bits(bits.reshape(*bits.shape[:2], num_inputs), name).to(words.device)


def _native(words: np.ndarray) -> np.ndarray:
    """Convert little-endian words to this machine's order, or back."""
    return words if sys.byteorder == "little" else words.byteswap()
