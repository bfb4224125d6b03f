"""Codes into bytes and back, at odd sizes: planes of 1 and 2 bits, strided rows, the blocks of ggml, base 3 among them.

The first cases are known bytes: a pattern that needs no random generator, and the SHA-256 of what it has to become.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import Tensor

from bitnet_train.errors import FormatError
from bitnet_train.formats.ggml import decode, encode
from bitnet_train.formats.hf_bitnet import pack_strided, unpack_strided
from bitnet_train.formats.planes import pack_planes, unpack_planes
from bitnet_train.formats.q8_0 import decode_q8_0, encode_q8_0
from scripts.fuzz.drawn import drawn
from scripts.fuzz.targets import Attempt, Outcome

SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1025)


@dataclass(frozen=True)
class Codec:
    """Codes int8 [N, K] to bytes and back; `step` is what N and K must be multiples of.

    `canonical` means that every sequence of bytes is refused or is what its codes are written as.
    """

    write: Callable[[Tensor, Tensor], Tensor]
    read: Callable[[Tensor, int, int], Tensor]
    codes: tuple[int, ...]
    known_sha256: str
    step: tuple[int, int] = (1, 1)
    canonical: bool = False


def _blocks(name: str) -> dict[str, Callable[..., Tensor]]:
    return {
        "write": lambda codes, scale: encode(codes, scale.reshape(-1, 1), name),
        "read": lambda data, rows, inputs: decode(data, inputs, name)[0],
    }


def _planes(name: str) -> dict[str, Callable[..., Tensor]]:
    return {
        "write": lambda codes, scale: pack_planes(codes, name),
        "read": lambda data, rows, inputs: unpack_planes(data, inputs, name),
    }


_BINARY, _TERNARY, _THREE_PLANES, _FOUR_PLANES = (-1, 1), (-1, 0, 1), tuple(range(-7, 8, 2)), tuple(range(-15, 16, 2))
CODECS: Mapping[str, Codec] = {
    "planes, binary": Codec(
        **_planes("binary"),
        codes=_BINARY,
        known_sha256="bae195f71261a595f0e3e25da113c1bd47c1dad7db8308c76b3b8c11429c2ee4",
        canonical=True,
    ),
    "planes, two": Codec(
        **_planes("2-plane"),
        codes=(-3, -1, 1, 3),
        known_sha256="9757d9c4c20200fea6a28ea1e55b7e424e2d1f2a13bc11944cc33202cc82c7c7",
        canonical=True,
    ),
    "planes, three": Codec(
        **_planes("3-plane"),
        codes=_THREE_PLANES,
        known_sha256="6dd66a0482da72d3e83701b0d84eba7ffa94879a1b8a824395aaee1b10039ac0",
        canonical=True,
    ),
    "planes, four": Codec(
        **_planes("4-plane"),
        codes=_FOUR_PLANES,
        known_sha256="cc694d842ed10ec5ded3b77ee78715c3a263b0d92e4d1ba568c1f1fec1532b30",
        canonical=True,
    ),
    "planes, ternary": Codec(
        **_planes("ternary"),
        codes=_TERNARY,
        known_sha256="0812c8309bc283e0a46833c586d789cfc8fc1a3cd0f1bf345b6f523199bf588e",
        canonical=True,
    ),
    "strided": Codec(
        lambda codes, scale: pack_strided(codes),
        lambda data, rows, inputs: unpack_strided(data),
        _TERNARY,
        "655d055cc32ec7a12788bcb94b7c47ae77d1ecf686e17d5f38f49151e8010837",
        step=(4, 1),
        canonical=True,
    ),
    "q1_0": Codec(
        **_blocks("q1_0"),
        codes=_BINARY,
        known_sha256="c2dd6b7c257ebef61e9325f6d4ae241deab0b900dee79e97305e15ca47508674",
        step=(1, 128),
    ),
    "q2_0": Codec(
        **_blocks("q2_0"),
        codes=_TERNARY,
        known_sha256="ffbe28742dc630eb040bdd34e15df60e25ecaf2f35bf69134d3a5db67386eb37",
        step=(1, 64),
    ),
    "tq1_0": Codec(
        **_blocks("tq1_0"),
        codes=_TERNARY,
        known_sha256="9b167625903c13e4481d4e644444bb625d3a5f96be2c6553a619395cd89918e0",
        step=(1, 256),
    ),
    "tq2_0": Codec(
        **_blocks("tq2_0"),
        codes=_TERNARY,
        known_sha256="b8df92f438890d377f11ff2e85cdc0f9baf94972d3b5b194944d733d04ee2b4f",
        step=(1, 256),
    ),
    "q4_0": Codec(
        **_blocks("q4_0"),
        codes=_THREE_PLANES,
        known_sha256="f2de3667e0ea27de17089d2a7e8b0c24b0180c2072f84c7a42fb9f9934d35034",
        step=(1, 32),
    ),
    "q5_0": Codec(
        **_blocks("q5_0"),
        codes=_FOUR_PLANES,
        known_sha256="d361f9f7c32a3408db8c8065faf25e1decad10db41f191fb8590b77bc9420c13",
        step=(1, 32),
    ),
    "q8_0": Codec(
        encode_q8_0,
        lambda data, rows, inputs: decode_q8_0(data, inputs)[0],
        tuple(range(-128, 128)),
        "29e40038319899bce966604ea4594059fb9d0243545941b6537c62e37e7af7e9",
        step=(1, 32),
    ),
}


def codecs(work: Path) -> Attempt:
    """Write codes and read them; damage a byte of those that are canonical, and read again."""
    known = list(CODECS)
    of_all = st.tuples(
        st.sampled_from(known),
        st.integers(0, 9),
        st.sampled_from(SIZES) | st.integers(0, 1025),
        st.integers(0, 2**32 - 1),
        st.integers(0, 9),
    )
    draw = drawn(of_all, lambda case: _round_trip(*case))

    def attempt(dice: random.Random, number: int) -> Outcome:
        if number >= len(known):
            return draw(dice, number)
        codec = CODECS[known[number]]
        found = hashlib.sha256(codec.write(*known_codes(codec)).numpy().tobytes()).hexdigest()
        assert found == codec.known_sha256, f"{known[number]}: other bytes than ever before, {found}"
        return "works"

    return attempt


def known_codes(codec: Codec) -> tuple[Tensor, Tensor]:
    """Codes [8, 512] that need no random generator: number n^2 mod 257 of the codec's; and scales [8]."""
    values = torch.tensor(codec.codes, dtype=torch.int8)
    numbers = torch.arange(8 * 512).square() % 257 % len(values)
    return values[numbers].reshape(8, 512), torch.arange(1, 9) / 8


def _round_trip(name: str, rows: int, inputs: int, seed: int, misfit: int) -> Outcome:
    codec, generator = CODECS[name], torch.Generator().manual_seed(seed)
    if misfit:  # one in ten may be of a size that the codec cannot keep
        rows, inputs = (-(-size // step) * step for size, step in zip((rows, inputs), codec.step, strict=True))
    values = torch.tensor(codec.codes, dtype=torch.int8)
    codes = values[torch.randint(len(values), (rows, inputs), generator=generator)]
    scale = torch.rand(rows, generator=generator).half().float()
    fits = rows % codec.step[0] == 0 and inputs % codec.step[1] == 0
    try:
        data = codec.write(codes, scale)
    except FormatError:
        assert not fits, f"{name} refuses {rows} x {inputs}"
        return "refused"
    assert fits, f"{name} takes {rows} x {inputs}, whose size it cannot keep"
    assert torch.equal(codec.read(data, rows, inputs), codes), f"{name}: {rows} x {inputs}"
    return _damaged(codec, data, codes, scale, generator) if codec.canonical and data.numel() else "works"


def _damaged(codec: Codec, data: Tensor, codes: Tensor, scale: Tensor, generator: torch.Generator) -> Outcome:
    at = int(torch.randint(data.numel(), (1,), generator=generator))
    changed = data.clone().reshape(-1)
    changed[at] ^= 1 << int(torch.randint(8, (1,), generator=generator))
    changed = changed.reshape(data.shape)
    try:
        read = codec.read(changed, *codes.shape)
    except FormatError:
        return "refused"
    assert not torch.equal(read, codes), "a changed byte gives the same codes"
    assert torch.equal(codec.write(read, scale), changed), "bytes that no writer writes are read"
    return "works"
