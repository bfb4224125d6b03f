"""Whatever library a full or refusing disk is met through, it is one error that names path, reason and bytes."""

from __future__ import annotations

import errno
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from bitnet_train.disk import check_writable, free_bytes, needing, writing
from bitnet_train.errors import DiskError, FormatError
from bitnet_train.whole import whole_file, whole_folder, write_whole

WEIGHTS = {"w": torch.zeros(100_000)}
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("x" * 500_000),
    "torch": lambda path: torch.save(WEIGHTS, path.open("wb")),
    "safetensors": lambda path: save_file(WEIGHTS, path),
    "tokenizers": lambda path: Tokenizer(models.BPE({str(i): i for i in range(30_000)}, [])).save(str(path)),
    "json": lambda path: json.dump("x" * 500_000, path.open("w")),
}


@contextmanager
def small_files(most_bytes: int = 100_000) -> Iterator[None]:
    """Let writes beyond so many bytes fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_one_error_through_every_library(kind: str, tmp_path: Path) -> None:
    write_whole(tmp_path / "out" / "before", "kept")
    with pytest.raises(DiskError) as caught, small_files(), whole_folder(tmp_path / "out") as draft, needing(400_000):
        WRITERS[kind](draft / "file")
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'out'} cannot be written: File too large; 400,000 bytes are needed, and ")
    free = int(re.search(r"and ([\d,]+) bytes are free", said)[1].replace(",", ""))
    assert 0.5 < free / free_bytes(tmp_path) < 2, "others write here meanwhile"
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/before"]


def test_what_is_known_first_of_the_bytes_is_what_is_said(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r" 600,000 bytes are needed"), small_files():
        write_whole(tmp_path / "file", "x" * 600_000)
    with pytest.raises(DiskError, match=r" 2 bytes are needed"), writing(tmp_path), needing(9), needing(2):
        raise OSError(errno.ENOSPC, "full")


def test_something_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"file/out cannot be written: .*another folder"):
        write_whole(tmp_path / "file" / "out", "text")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "of another file", "/elsewhere/read"),
        OSError(errno.ECONNREFUSED, "of a server"),
        ValueError("of a program"),
        FormatError("ours"),
    ],
)
def test_what_is_not_of_the_disk_passes_as_it_is(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, whole_file(tmp_path / "out"):
        raise error
    assert caught.value is error


def test_a_file_that_is_read_beside_what_is_written_is_not_taken_for_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_folder(tmp_path / "out"):
        (tmp_path / "source").read_text()


def test_a_folder_that_may_not_be_written_is_seen_before_it_is(tmp_path: Path, bound: list[str]) -> None:
    check_writable(tmp_path)
    check_writable(tmp_path / "not there yet")
    tmp_path.chmod(0o500)
    code = "import sys; from pathlib import Path; from bitnet_train.disk import *; check_writable(Path(sys.argv[1]))"
    done = subprocess.run([*bound, sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert f"DiskError: {tmp_path} cannot be written: Permission denied. Make it writable" in done.stderr
