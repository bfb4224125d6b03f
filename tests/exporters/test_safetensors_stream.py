from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from bitnet_train.exporters.safetensors_stream import DTYPE_NAMES, stream_safetensors
from bitnet_train.packed.narrow import same_bits

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
kinds = st.sampled_from(list(DTYPE_NAMES))


def some_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    return (torch.randn(shape) * 50).to(dtype)


def write(path: Path, tensors: dict[str, torch.Tensor]) -> int:
    listed = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    return stream_safetensors(path, listed, tensors.__getitem__, {"format": "pt"})


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(planned=st.dictionaries(names.filter(lambda name: name != "__metadata__"), st.tuples(kinds, shapes), max_size=8))
def test_the_file_has_the_bytes_that_the_library_writes(tmp_path_factory, planned):
    folder = tmp_path_factory.mktemp("streamed")
    tensors = {name: some_tensor(dtype, shape) for name, (dtype, shape) in planned.items()}
    num_bytes = write(folder / "ours", tensors)
    save_file(tensors, folder / "theirs", metadata={"format": "pt"})
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()
    assert num_bytes == (folder / "ours").stat().st_size


@pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=str)
def test_a_tensor_of_every_dtype_comes_back(tmp_path, dtype):
    tensors = {"odd": torch.ones(3, dtype=torch.uint8), "it": some_tensor(dtype, (5, 7))}
    write(tmp_path / "file", tensors)
    assert all(same_bits(tensor, tensors[name]) for name, tensor in load_file(tmp_path / "file").items())


def test_tensors_are_made_in_the_order_of_the_list_and_each_once(tmp_path):
    asked = []

    def produce(name: str) -> torch.Tensor:
        asked.append(name)
        return torch.zeros(2, dtype=torch.uint8 if name.endswith("planes") else torch.float16)

    listed = [
        (f"{layer}.{part}", torch.uint8 if part == "planes" else torch.float16, (2,))
        for layer in "ba"
        for part in ("planes", "scale")
    ]
    stream_safetensors(tmp_path / "file", listed, produce)
    assert asked == ["b.planes", "b.scale", "a.planes", "a.scale"]


def test_a_tensor_that_is_not_the_announced_one_is_a_programmers_error(tmp_path):
    with pytest.raises(AssertionError, match=r"w: .*announced"):
        stream_safetensors(tmp_path / "file", [("w", torch.float32, (2, 3))], lambda name: torch.zeros(3, 2))
    with pytest.raises(AssertionError, match="named twice"):
        stream_safetensors(tmp_path / "file", [("w", torch.float32, (1,))] * 2, lambda name: torch.zeros(1))


def test_a_transposed_tensor_is_written_in_row_order(tmp_path):
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3).T
    write(tmp_path / "file", {"w": tensor})
    assert torch.equal(load_file(tmp_path / "file")["w"], tensor)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the file system is asked for room by a POSIX call")
def test_a_full_disk_is_found_before_anything_is_made():
    full = Path("/dev/full")
    made = []
    with pytest.raises(OSError) as caught:  # noqa: PT011
        stream_safetensors(full, [("w", torch.uint8, (1 << 20,))], lambda name: made.append(name) or torch.zeros(1))
    assert caught.value.errno in (errno.ENOSPC, errno.ENODEV, errno.ESPIPE)
    assert made == []


@pytest.mark.slow
def test_memory_is_that_of_the_largest_tensor_and_not_of_the_file(tmp_path):
    code = """
    import resource, sys, torch
    from pathlib import Path
    from bitnet_train.exporters.safetensors_stream import stream_safetensors
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    listed = [(f"w{i}", torch.float32, (4 << 20,)) for i in range(24)]  # 24 tensors of 16 MB
    stream_safetensors(Path(sys.argv[1]), listed[:1], lambda name: torch.ones(4 << 20))
    before = peak()
    stream_safetensors(Path(sys.argv[1]), listed, lambda name: torch.ones(4 << 20))
    print(peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "file"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 48  # MB: three tensors; the file has 384
