"""Damage guided by coverage: atheris changes the bytes of a file so that lines run that no file reached before.

    pip install atheris && python -m scripts.fuzz --atheris gguf_check --count 1000000

For the readers of bytes alone. What reached a new line is kept in `build/fuzz/TARGET` and taken up by the next run; a
file that ends in anything but an error for people is written beside it, and ends the run. Not part of any test: atheris
is no dependency, and finds by hours what the table finds by intent.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from scripts import ROOT

Reader = Callable[[Path], object]


def run_guided(name: str, count: int | None) -> int:
    """Fuzz a reader until it is stopped, or for `count` files."""
    import atheris  # type: ignore[import-not-found]

    with atheris.instrument_imports(include=["bitnet_train"]):
        readers = {"gguf_check": _gguf, "packed": _weights, "native": _manifest}
        if name not in readers:
            raise SystemExit(f"--atheris reads bytes: {', '.join(readers)}")
        read, seeds = readers[name]()
    kept = ROOT / "build" / "fuzz" / name
    kept.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (kept / f"seed-{number}").write_bytes(seed)
    file = Path(tempfile.mkdtemp(prefix="fuzz-")) / "file"

    def one(data: bytes) -> None:
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        read(file)

    runs = [] if count is None else [f"-runs={count}"]
    atheris.Setup([sys.argv[0], str(kept), f"-artifact_prefix={kept.parent}/{name}-", "-max_len=65536", *runs], one)
    atheris.Fuzz()
    return 0


def _gguf() -> tuple[Reader, list[bytes]]:
    from bitnet_train.errors import FormatError
    from bitnet_train.gguf.file import open_gguf
    from scripts.fuzz import hand_made

    def read(file: Path) -> None:
        try:
            found = open_gguf(file)
        except FormatError:
            return
        for name in found.tensors:
            found.rows(name)

    return read, [hand_made.with_data(hand_made.SHORT), *hand_made.REFUSED.values()]


def _weights() -> tuple[Reader, list[bytes]]:
    from bitnet_train.errors import FormatError
    from bitnet_train.runtime.native.tensor_file import TensorFile

    def read(file: Path) -> None:
        try:
            TensorFile(file)
        except FormatError:
            return

    return read, [_sound("weights.safetensors")]


def _manifest() -> tuple[Reader, list[bytes]]:
    from bitnet_train.errors import FormatError
    from bitnet_train.packed.manifest import Manifest

    def read(file: Path) -> None:
        try:
            Manifest.from_json(file.read_text(encoding="utf-8"))
        except (FormatError, UnicodeDecodeError):
            return

    return read, [_sound("manifest.json")]


def _sound(name: str) -> bytes:
    from scripts.fuzz.native import make_folders

    folder = Path(tempfile.mkdtemp(prefix="fuzz-")) / "int8_tables"
    make_folders({"int8_tables": folder})
    return (folder / name).read_bytes()
