import struct

import numpy as np
import pytest

from bitnet_train.errors import FormatError
from bitnet_train.gguf.file import BLOCKS, ArrayOf, open_gguf
from tests.fixtures.gguf_files import TYPES, Tensor, gguf_bytes, text


def header(num_tensors=0, num_keys=0, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys)


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def array(kind, count, items):
    return struct.pack("<IQ", kind, count) + items


def entry(name, sizes, kind, offset):
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def with_data(head, num_bytes=0):
    return head + b"\0" * (-len(head) % 32) + bytes(range(256)) * 8 + b"\0" * num_bytes


KEYS = [
    key(b"general.architecture", 8, text(b"llama")),
    key(b"u8", 0, b"\x01"),
    key(b"f64", 12, struct.pack("<d", 1.5)),
    key(b"scores", 9, array(6, 3, struct.pack("<3f", 1, 2, 3))),
    key(b"tokenizer.words", 9, array(8, 2, text(b"a") + text(b"bc"))),
    key(b"nested", 9, array(9, 1, array(0, 2, b"\x01\x02"))),
    key(b"long", 8, text(b"x" * 70_000)),
]
HEADER = header(2, len(KEYS)) + b"".join(KEYS)
HEADER += entry(b"a.weight", (4, 8), 0, 0) + entry(b"b.weight", (128, 2), 41, 128)
SOUND = with_data(HEADER)[: -(-len(HEADER) // 32) * 32 + 128 + 36]
SHORT = header(1, 1) + KEYS[0] + entry(b"a.weight", (4, 8), 0, 0)


def write(tmp_path, content):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return path


def test_a_sound_file_gives_its_metadata_and_the_bytes_of_its_tensors(tmp_path):
    file = open_gguf(write(tmp_path, SOUND))
    assert file.metadata["general.architecture"] == "llama"
    assert (file.metadata["u8"], file.metadata["f64"]) == (1, 1.5)
    assert file.metadata["tokenizer.words"] == ArrayOf(2)
    assert file.metadata["long"] == ArrayOf(70_000)
    assert [tensor.shape for tensor in file.tensors.values()] == [(8, 4), (2, 128)]
    assert [tensor.type_name for tensor in file.tensors.values()] == ["F32", "Q1_0"]
    assert file.rows("b.weight").tolist() == [list(range(128, 146)), list(range(146, 164))]
    assert not file.rows("a.weight").flags.writeable


def test_versions_2_and_3_are_read(tmp_path):
    assert open_gguf(write(tmp_path, header(version=2))).tensors == {}
    assert open_gguf(write(tmp_path, header(version=3))).tensors == {}


def test_another_alignment_is_followed(tmp_path):
    content = header(1, 1) + key(b"general.alignment", 4, struct.pack("<I", 64)) + entry(b"a", (2,), 24, 64)
    file = open_gguf(write(tmp_path, content.ljust(192, b"\0")[:-2] + b"\x07\x08" + b"\0" * 64))
    assert file.tensors["a"].start % 64 == 0


def test_the_copy_without_tensors_is_a_sound_file_with_or_without_a_vocabulary(tmp_path):
    file = open_gguf(write(tmp_path, SOUND))
    everything = open_gguf(write(tmp_path, file.without_tensors()))
    assert (everything.metadata, everything.tensors) == (file.metadata, {})
    fewer = open_gguf(write(tmp_path, file.without_tensors(vocabulary=False)))
    assert set(file.metadata) - set(fewer.metadata) == {"tokenizer.words"}
    assert fewer.metadata["tokenizer.ggml.tokens"] == ArrayOf(1)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [SOUND, with_data(SHORT)[: 32 * -(-len(SHORT) // 32) + 128]], ids=["long", "short"])
def test_every_truncation_is_found(whole, tmp_path):
    lengths = range(len(whole)) if len(whole) < 1000 else (*range(400), *range(len(whole) - 400, len(whole)))
    for length in lengths:
        with pytest.raises(FormatError, match=r"truncated or damaged|not a GGUF"):
            open_gguf(write(tmp_path, whole[:length]))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("count", [2**63, 2**40, 2**32])
@pytest.mark.parametrize("kind", [0, 8, 9])
def test_an_array_longer_than_the_file_is_found_at_once(kind, count, tmp_path):
    content = header(0, 1) + key(b"a", 9, array(kind, count, b"\x00" * 8))
    with pytest.raises(FormatError, match="truncated or damaged"):
        open_gguf(write(tmp_path, content))


ONE_KEY = header(0, 1)
ONE_TENSOR = header(1)
DAMAGED = {
    "zip": (b"PK\x03\x04" + SOUND, "does not start with the letters GGUF"),
    "empty": (b"", "does not start with the letters GGUF"),
    "version 1": (header(version=1), "GGUF version 1"),
    "big-endian": (header(version=0x03000000), "GGUF version 50331648"),
    "2^60 tensors": (header(2**60), "truncated or damaged"),
    "2^60 keys": (header(0, 2**60), "truncated or damaged"),
    "many tensors": (header(2**17) + bytes(2**22), "never more than 65536"),
    "value type": (ONE_KEY + key(b"name", 77, b"\x00" * 8), "unknown type 77"),
    "deep": (
        ONE_KEY + key(b"name", 9, array(9, 1, array(9, 1, array(9, 1, array(9, 1, array(0, 1, b"\0")))))),
        "type 9",
    ),
    "long name": (ONE_KEY + text(b"n" * 257) + b"\0" * 99, "never more than 256"),
    "no text": (ONE_KEY + key(b"\xff\xfe", 0, b"\0"), "no UTF-8"),
    "key twice": (header(0, 2) + 2 * key(b"a", 0, b"\0"), "has the key a twice"),
    "no dimension": (with_data(ONE_TENSOR + entry(b"t", (), 0, 0)), "t has 0 dimensions"),
    "5 dimensions": (with_data(ONE_TENSOR + entry(b"t", (1,) * 5, 0, 0)), "t has 5 dimensions"),
    "2^32 dimensions": (ONE_TENSOR + text(b"t") + struct.pack("<I", 2**32 - 1) + b"\0" * 99, "4294967295 dimensions"),
    "size 0": (with_data(ONE_TENSOR + entry(b"t", (4, 0), 0, 0)), r"t has the shape \[0, 4\]"),
    "size 2^63": (with_data(ONE_TENSOR + entry(b"t", (4, 2**63), 0, 0)), "truncated or damaged"),
    "product 2^64": (with_data(ONE_TENSOR + entry(b"t", (2**32, 2**32), 0, 0)), "truncated or damaged"),
    "part of a block": (with_data(ONE_TENSOR + entry(b"t", (130, 2), 41, 0)), r"\[2, 130\], and Q1_0 .* of 128"),
    "type": (with_data(ONE_TENSOR + entry(b"t", (32,), 43, 0)), "unknown type 43. Known: 0 F32, 1 F16"),
    "offset 2^63": (with_data(ONE_TENSOR + entry(b"t", (32,), 0, 2**63)), "truncated or damaged"),
    "unaligned": (with_data(ONE_TENSOR + entry(b"t", (32,), 0, 4)), "t is not aligned to 32 bytes"),
    "overlap": (
        with_data(header(2) + entry(b"t", (32,), 0, 0) + entry(b"u", (32,), 0, 96)),
        "t and u overlap",
    ),
    "same name": (with_data(header(2) + 2 * entry(b"t", (8,), 0, 0)), "two tensors called t"),
    "alignment 0": (with_data(ONE_KEY + key(b"general.alignment", 4, bytes(4))), "no power of two"),
    "alignment 48": (with_data(ONE_KEY + key(b"general.alignment", 4, struct.pack("<I", 48))), "no power of two"),
    "alignment text": (with_data(ONE_KEY + key(b"general.alignment", 8, text(b"32"))), "no power of two"),
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", DAMAGED)
def test_a_foreign_or_hostile_file_is_refused(name, tmp_path):
    content, message = DAMAGED[name]
    with pytest.raises(FormatError, match=message):
        open_gguf(write(tmp_path, content))


def test_the_block_sizes_are_those_of_the_gguf_package():
    gguf = pytest.importorskip("gguf", exc_type=ImportError)
    theirs = {kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    ours = {number: kind for number, kind in BLOCKS.items() if number in theirs}
    del theirs[9], ours[9]  # Q8_1 is no type of files; their size of it is one of long ago
    assert ours == theirs


def test_the_gguf_package_reads_what_the_writer_of_these_tests_writes(tmp_path):
    gguf = pytest.importorskip("gguf", exc_type=ImportError)
    values = np.arange(64, dtype="<f4").reshape(2, 32)
    tensors = {"a": Tensor(0, (2, 32), values.tobytes()), "b": Tensor(24, (3,), b"\1\2\3")}
    path = write(tmp_path, gguf_bytes({"general.architecture": "llama", "words": ["x", "yz"]}, tensors))
    reader = gguf.GGUFReader(path)
    assert [tensor.name for tensor in reader.tensors] == ["a", "b"]
    assert np.array_equal(reader.tensors[0].data, values)
    assert open_gguf(path).rows("a").tobytes() == values.tobytes()


@pytest.mark.parametrize(("kind", "block", "num_bytes"), [("Q2_0", 128, 34), ("Q1_0", 32, 6)])
@pytest.mark.parametrize("last", [False, True], ids=["between others", "last"])
def test_blocks_of_an_earlier_layout_are_called_that_and_not_a_damaged_file(kind, block, num_bytes, last, tmp_path):
    old = Tensor(TYPES[kind], (64, 256), bytes(64 * 256 // block * num_bytes))
    tensors = {"norm": Tensor(0, (8,), bytes(32)), "old": old}
    tensors |= {} if last else {"other": Tensor(0, (8,), bytes(32))}
    path = tmp_path / "old.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "llama"}, tensors))
    with pytest.raises(FormatError, match=rf"old is {kind} in an earlier layout, blocks of {block} weights") as caught:
        open_gguf(path)
    assert "Downloading it again changes nothing" in str(caught.value)
