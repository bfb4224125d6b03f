import struct

import pytest

from bitnet_train.errors import FormatError
from bitnet_train.model.gguf_header import check_gguf_header


def text(value):
    return struct.pack("<Q", len(value)) + value


def header(num_tensors=0, num_keys=0, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys)


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def array(kind, count, items):
    return struct.pack("<IQ", kind, count) + items


KEYS = [
    key(b"general.architecture", 8, text(b"llama")),
    key(b"u8", 0, b"\x01"),
    key(b"f64", 12, struct.pack("<d", 1.5)),
    key(b"scores", 9, array(6, 3, struct.pack("<3f", 1, 2, 3))),
    key(b"tokens", 9, array(8, 2, text(b"a") + text(b"bc"))),
    key(b"nested", 9, array(9, 1, array(0, 2, b"\x01\x02"))),
]
TENSOR = text(b"token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 8, 0, 0)
SOUND = header(1, len(KEYS)) + b"".join(KEYS) + TENSOR


def write(tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [SOUND, SOUND + b"data", header(version=2)], ids=["whole", "with data", "empty"])
def test_a_sound_header_passes(content, tmp_path):
    check_gguf_header(write(tmp_path, content))


def test_every_truncation_of_a_sound_header_is_found(tmp_path):
    for length in range(len(SOUND)):
        with pytest.raises(FormatError, match=r"truncated or damaged|not a GGUF"):
            check_gguf_header(write(tmp_path, SOUND[:length]))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("count", [2**63, 2**40, 2**32])
@pytest.mark.parametrize("kind", [0, 8, 9])
def test_an_array_longer_than_the_file_is_found_at_once(kind, count, tmp_path):
    content = header(0, 1) + key(b"a", 9, array(kind, count, b"\x00" * 8))
    with pytest.raises(FormatError, match="truncated or damaged"):
        check_gguf_header(write(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + SOUND, "does not start with the letters GGUF"),
        (header(version=1), "GGUF version 1"),
        (header(version=0x03000000), "GGUF version 50331648"),
        (header(2**60), "truncated or damaged"),
        (header(0, 2**60), "truncated or damaged"),
        (header(0, 1) + key(b"name", 77, b"\x00" * 8), "unknown type 77"),
        (header(1) + text(b"t") + struct.pack("<I", 9) + b"\x00" * 100, "truncated or damaged"),
    ],
)
def test_a_foreign_or_hostile_header_is_refused(content, message, tmp_path):
    with pytest.raises(FormatError, match=message):
        check_gguf_header(write(tmp_path, content))
